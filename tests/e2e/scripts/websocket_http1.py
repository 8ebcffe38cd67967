# A WebSocket client over HTTP/1.1: everything that RFC 6455 has, through a URL given. With VERSION, the server
# is one that tells in which version of HTTP it was asked.
import asyncio, os, sys, websockets

url = sys.argv[1]
version = sys.argv[2] if len(sys.argv) > 2 else None

def open():
    return websockets.connect(url, max_size=None, subprotocols=["chat"], compression=None, proxy=None)

async def closes_with(message, code, reason):
    async with open() as peer:
        await peer.send(message)
        try:
            await peer.recv()
            raise SystemExit("it did not close")
        except websockets.ConnectionClosed as end:
            got = (end.rcvd.code, end.rcvd.reason) if end.rcvd else None
            assert got == (code, reason) if code else got is None, (message, got)

async def one(number):
    async with open() as peer:
        assert peer.subprotocol == "chat"
        if version:
            await peer.send("version")
            assert await peer.recv() == version
        for size in (0, 1, 125, 126, 65535, 65536, 100_000 + number):
            message = os.urandom(size)
            await peer.send(message)
            assert await peer.recv() == message, size
        await peer.send("text \u00e9")
        assert await peer.recv() == "text \u00e9"
        await peer.send([b"frag", b"men", b"ted"])
        assert await peer.recv() == b"fragmented"
        # A control frame in the middle of a message (RFC 6455 section 5.4).
        async def parts():
            yield b"first "
            await (await peer.ping(b"now"))
            yield b"second"
        await peer.send(parts())
        assert await peer.recv() == b"first second"

async def main():
    await asyncio.gather(*(one(number) for number in range(64)))
    async with open() as peer:
        message = os.urandom(16 << 20)
        await peer.send(message)
        assert await peer.recv() == message
    for code, reason in ((1000, "bye"), (1001, "away"), (1011, "oops"), (4999, "own")):
        await closes_with(f"close {code} {reason}", code, reason)
    await closes_with("abort", None, None)
    print("all well")

asyncio.run(main())
