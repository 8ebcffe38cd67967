"""HTTP clients of Python with credentials for the proxy. Arguments: CLIENT MODULES PROXY NODE NODES CA NAME PASSWORD."""
import asyncio
import ssl
import sys

CLIENT, _, PROXY, NODE, NODES, CA, NAME, PASSWORD = sys.argv[1:]
RIGHT, WRONG = f"{NAME}:{PASSWORD}@{PROXY}", f"{NAME}:wrong@{PROXY}"
URLS = [f"http://{NODE}/echo", f"https://{NODES}/echo"]


def check(seen):
    assert not [name for name in seen["headers"] if name.startswith("proxy-")], seen


def httpx():
    import httpx
    for scheme in ["http", "socks5"]:
        with httpx.Client(proxy=f"{scheme}://{RIGHT}", verify=ssl.create_default_context(cafile=CA)) as client:
            for url in URLS * 2:
                check(client.get(url).json())
    with httpx.Client(proxy=f"http://{WRONG}", verify=False) as client:
        assert client.get(URLS[0]).status_code == 407
        try:
            client.get(URLS[1])
        except httpx.ProxyError as error:
            assert "407" in str(error), error
        else:
            raise AssertionError("a tunnel without credentials")


def requests():
    import requests
    for scheme in ["http", "socks5h"]:
        session = requests.Session()
        session.proxies = {"http": f"{scheme}://{RIGHT}", "https": f"{scheme}://{RIGHT}"}
        for url in URLS * 2:
            check(session.get(url, verify=CA).json())
    session.proxies = {"http": f"http://{WRONG}", "https": f"http://{WRONG}"}
    assert session.get(URLS[0]).status_code == 407
    try:
        session.get(URLS[1], verify=CA)
    except requests.exceptions.ProxyError as error:
        assert "407" in str(error), error
    else:
        raise AssertionError("a tunnel without credentials")


def aiohttp():
    import aiohttp

    async def run():
        context = ssl.create_default_context(cafile=CA)
        auth = aiohttp.BasicAuth(NAME, PASSWORD)
        async with aiohttp.ClientSession() as session:
            for url in URLS * 2:
                async with session.get(url, proxy=f"http://{PROXY}", proxy_auth=auth, ssl=context) as answer:
                    check(await answer.json())
            async with session.get(URLS[0], proxy=f"http://{WRONG}") as answer:
                assert answer.status == 407
            try:
                await session.get(URLS[1], proxy=f"http://{WRONG}", ssl=context)
            except aiohttp.ClientHttpProxyError as error:
                assert error.status == 407
            else:
                raise AssertionError("a tunnel without credentials")

    asyncio.run(run())


{"httpx": httpx, "requests": requests, "aiohttp": aiohttp}[CLIENT]()
print("all well")
