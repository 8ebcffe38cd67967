"""Happy eyeballs (RFC 8305) to a name with two addresses: V6 V6_PORT V4 V4_PORT DELAY ROUNDS.

Prints which family each round ended with, and how: `6 answered`, `4 answered`, `6 reset`.
"""
import asyncio
import socket
import sys

v6, v6_port, v4, v4_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
delay, rounds = float(sys.argv[5]), int(sys.argv[6])


async def resolve(*_, **__):
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (v6, v6_port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (v4, v4_port)),
    ]


async def once():
    reader, writer = await asyncio.open_connection("two.example", 0, happy_eyeballs_delay=delay)
    family = 6 if writer.get_extra_info("socket").family == socket.AF_INET6 else 4
    try:
        writer.write(b"who am I?\n")
        answer = await reader.read()
        assert answer, "an end, but no answer"
        return f"{family} answered"
    except ConnectionError:
        return f"{family} reset"
    finally:
        writer.close()


async def main():
    asyncio.get_running_loop().getaddrinfo = resolve
    for _ in range(rounds):
        print(await asyncio.wait_for(once(), 30))


asyncio.run(main())
