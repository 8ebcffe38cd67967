# A WebSocket server: echoes each message as it came; "close CODE REASON" closes with that; "abort" ends the
# connection without a close. With CERTIFICATE and KEY, over TLS.
import asyncio, ssl, sys, websockets

async def serve(peer):
    async for message in peer:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            await peer.close(int(code), reason)
        elif message == "abort":
            peer.transport.abort()
        else:
            await peer.send(message)

async def main():
    secure = None
    if len(sys.argv) > 1:
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secure.load_cert_chain(sys.argv[1], sys.argv[2])
    async with websockets.serve(serve, "127.0.0.1", 0, max_size=None, subprotocols=["chat"],
                                compression=None, ssl=secure) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
