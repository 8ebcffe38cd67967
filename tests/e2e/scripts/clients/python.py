"""HTTP clients of Python through a proxy. Arguments: CLIENT PROXY NODE NODES NGINX NGINXS CA WS, addresses as
host:port; NODES and NGINXS speak TLS with a certificate of CA. Each client's function says what it does."""
import asyncio
import hashlib
import os
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

CLIENT, PROXY, NODE, NODES, NGINX, NGINXS, CA, WEBSOCKET = sys.argv[1:]
HTTP_PROXY, HTTPS_PROXY, SOCKS_PROXY = f"http://{PROXY}", f"https://{PROXY}", f"socks5h://{PROXY}"
CONTENT = bytes(range(256)) * 8192  # 2 MiB
SUM = hashlib.sha256(CONTENT).hexdigest()
MANY = 40


def pieces():
    for start in range(0, len(CONTENT), 100_000):
        yield CONTENT[start:start + 100_000]


async def pieces_async():
    for piece in pieces():
        yield piece


def check(seen, forwarded, **expected):
    """What node's /echo says has arrived: `forwarded` by weir, or through a tunnel."""
    assert ("via" in seen["headers"]) == forwarded, seen
    assert not [name for name in seen["headers"] if name.startswith("proxy-")], seen
    for name, value in expected.items():
        assert seen[name] == value, (name, value, seen)


def environment(no_proxy=""):
    os.environ.update(http_proxy=HTTP_PROXY, https_proxy=HTTP_PROXY, no_proxy=no_proxy)


def httpx_sync():
    import httpx
    trust = ssl.create_default_context(cafile=CA)
    for proxy, forwarded in [
        (httpx.Proxy(HTTP_PROXY), True),
        (httpx.Proxy(HTTPS_PROXY, ssl_context=trust), True),
        (httpx.Proxy(SOCKS_PROXY), False),
    ]:
        for http2 in [False, True]:
            with httpx.Client(proxy=proxy, verify=trust, http2=http2, trust_env=False, timeout=60) as client:
                check(client.get(f"http://{NODE}/echo").json(), forwarded)
                check(client.post(f"http://{NODE}/echo", content=CONTENT).json(), forwarded, sha256=SUM)
                check(client.put(f"http://{NODE}/echo", content=pieces()).json(), forwarded, sha256=SUM)
                # httpx can't do TLS inside TLS.
                if proxy.url.scheme == "https":
                    continue
                response = client.get(f"https://{NODES}/echo")
                assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1"), response.http_version
                check(response.json(), False)
                check(client.post(f"https://{NODES}/echo", content=CONTENT).json(), False, sha256=SUM)
                assert len(client.get(f"https://{NGINXS}/large.bin").content) == 3 << 20
    with httpx.Client(proxy=HTTP_PROXY, trust_env=False, timeout=60) as client:
        assert client.get(f"http://{NODE}/hints").text == "after hints"
        assert client.get(f"http://{NODE}/moved", follow_redirects=True).json()["path"] == "/echo"
        with client.stream("GET", f"http://{NODE}/stream") as response:
            lines = response.iter_lines()
            for nth in [1, 2, 3]:
                assert next(lines) == f"line {nth}"
                if nth < 3:
                    client.get(f"http://{NODE}/next")
        try:
            client.get(f"http://{NODE}/cut")
            raise AssertionError("a response that was cut off passed for a whole one")
        except (httpx.RemoteProtocolError, httpx.ReadError):
            pass
        refused = client.get("http://127.0.0.1:1/", headers={"Accept": "application/json"})
        assert refused.status_code == 502 and "refused" in refused.json()["detail"], refused.text
    environment()
    check(httpx.get(f"http://{NODE}/echo").json(), True)
    environment(no_proxy="127.0.0.1")
    check(httpx.get(f"http://{NODE}/echo").json(), False)


def httpx_async():
    import httpx
    trust = ssl.create_default_context(cafile=CA)

    async def main():
        for http2 in [False, True]:
            async with httpx.AsyncClient(proxy=HTTP_PROXY, verify=trust, http2=http2, trust_env=False,
                                         timeout=60) as client:
                async def one(url, forwarded):
                    response = await client.post(url, content=CONTENT[:70_000])
                    check(response.json(), forwarded, length=70_000)
                plain, secure = f"http://{NODE}/echo", f"https://{NODES}/echo"
                await asyncio.gather(*[one(plain, True) for _ in range(MANY)])
                # HTTP/2: one connection for all of them. (If none is there yet, httpx opens many, and may close one in use.)
                await one(secure, False)
                await asyncio.gather(*[one(secure, False) for _ in range(MANY)])
                response = await client.put(plain, content=pieces_async())
                check(response.json(), True, sha256=SUM)
                # Given up half-way: what follows is not disturbed.
                for _ in range(5):
                    async with client.stream("GET", f"http://{NGINX}/large.bin") as response:
                        await anext(response.aiter_bytes())
                check((await client.get(plain)).json(), True)

    asyncio.run(main())


def requests():
    import requests
    proxies = {"http": HTTP_PROXY, "https": HTTP_PROXY}
    for used, forwarded in [
        (proxies, True),
        ({"http": HTTPS_PROXY, "https": HTTPS_PROXY}, True),
        ({"http": SOCKS_PROXY, "https": SOCKS_PROXY}, False),
        ({"all": SOCKS_PROXY.replace("5h", "5")}, False),
    ]:
        with requests.Session() as session:
            session.trust_env, session.proxies, session.verify = False, used, CA
            for _ in range(3):
                check(session.get(f"http://{NODE}/echo").json(), forwarded)
                check(session.get(f"https://{NODES}/echo").json(), False, version="1.1")
            check(session.post(f"http://{NODE}/echo", data=CONTENT).json(), forwarded, sha256=SUM)
            check(session.put(f"http://{NODE}/echo", data=pieces()).json(), forwarded, sha256=SUM)
            form = session.post(f"http://{NODE}/echo", files={"file": CONTENT}, data={"field": "value"}).json()
            assert form["length"] > len(CONTENT)
            assert len(session.get(f"http://{NGINX}/large.bin").content) == 3 << 20
    with requests.Session() as session:
        session.trust_env, session.proxies = False, proxies
        text = session.get(f"http://{NGINX}/page.txt")
        assert text.headers["Content-Encoding"] == "gzip" and text.text == "a line of a page\n" * 200
        part = session.get(f"http://{NGINX}/large.bin", headers={"Range": "bytes=5-9"})
        assert part.status_code == 206 and len(part.content) == 5
        with session.get(f"http://{NODE}/stream", stream=True) as response:
            lines = response.iter_lines(chunk_size=1)
            for nth in [1, 2, 3]:
                assert next(lines) == b"line %d" % nth
                if nth < 3:
                    session.get(f"http://{NODE}/next")
        assert session.get("http://127.0.0.1:1/").status_code == 502
        try:
            session.get("https://127.0.0.1:1/")
            raise AssertionError("a tunnel to nowhere")
        except requests.exceptions.ProxyError as error:
            assert "502" in str(error), error
    environment()
    check(requests.get(f"http://{NODE}/echo").json(), True)
    environment(no_proxy="127.0.0.1")
    check(requests.get(f"http://{NODE}/echo").json(), False)


def urllib3():
    import urllib3
    from urllib3.contrib.socks import SOCKSProxyManager
    for manager, forwarded in [
        (urllib3.ProxyManager(HTTP_PROXY, ca_certs=CA, maxsize=MANY), True),
        (urllib3.ProxyManager(HTTPS_PROXY, ca_certs=CA, maxsize=MANY), True),
        # weir does TLS with the server.
        (urllib3.ProxyManager(HTTP_PROXY, ca_certs=CA, maxsize=MANY, use_forwarding_for_https=True), True),
        (SOCKSProxyManager(SOCKS_PROXY, ca_certs=CA, maxsize=MANY), False),
    ]:
        check(manager.request("GET", f"http://{NODE}/echo").json(), forwarded)
        check(manager.request("GET", f"https://{NODES}/echo").json(), False)
        check(manager.request("PUT", f"http://{NODE}/echo", body=CONTENT).json(), forwarded, sha256=SUM)
        chunked = manager.request("PUT", f"http://{NODE}/echo", body=pieces(), chunked=True)
        check(chunked.json(), forwarded, sha256=SUM)

        def one(nth):
            size = 1000 * nth
            assert len(manager.request("GET", f"http://{NODE}/bytes?{size}").data) == size

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(one, range(MANY)))
    forwarding = urllib3.ProxyManager(HTTPS_PROXY, ca_certs=CA, use_forwarding_for_https=True)
    check(forwarding.request("GET", f"https://{NODES}/echo").json(), True)


def aiohttp():
    import aiohttp
    trust = ssl.create_default_context(cafile=CA)

    async def main():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            # TLS inside TLS, too.
            for proxy in [HTTP_PROXY, HTTPS_PROXY]:
                async def one(url, forwarded, data=CONTENT[:70_000]):
                    async with session.post(url, data=data, proxy=proxy) as response:
                        check(await response.json(), forwarded)
                await asyncio.gather(*[one(f"http://{NODE}/echo", True) for _ in range(MANY)])
                await asyncio.gather(*[one(f"https://{NODES}/echo", False) for _ in range(MANY)])
                await one(f"http://{NODE}/echo", True, pieces_async())
            for url in [f"ws://{WEBSOCKET}/", f"http://{WEBSOCKET}/chat"]:
                async with session.ws_connect(url, proxy=HTTP_PROXY, protocols=["chat"], max_msg_size=0) as socket:
                    await socket.send_str("a text")
                    assert (await socket.receive_str()) == "a text"
                    await socket.send_bytes(CONTENT)
                    assert (await socket.receive_bytes()) == CONTENT
            try:
                async with session.get(f"http://{NODE}/cut", proxy=HTTP_PROXY) as response:
                    await response.read()
                raise AssertionError("a response that was cut off passed for a whole one")
            except (aiohttp.ClientPayloadError, aiohttp.ClientOSError):
                pass
        environment()
        async with aiohttp.ClientSession(trust_env=True) as session:
            async with session.get(f"http://{NODE}/echo") as response:
                check(await response.json(), True)

    asyncio.run(main())


for name in list(os.environ):
    if name.lower().endswith("_proxy"):
        del os.environ[name]
{f.__name__: f for f in [httpx_sync, httpx_async, requests, urllib3, aiohttp]}[CLIENT]()
print("all well")
