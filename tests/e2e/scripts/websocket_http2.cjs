// A server that speaks HTTP/2, with WebSockets there (RFC 8441) if CONNECT is "connect": echoes each message as it came;
// "close CODE REASON" closes with that, "version" is answered with the version of HTTP, "abort" resets the stream. In the
// clear with prior knowledge; with CERTIFICATE and KEY over TLS, where HTTP/1.1 can be had as well.
// Arguments: MODULES CONNECT [CERTIFICATE KEY].
const [modules, connect, certificate, key] = process.argv.slice(2);
const fs = require('fs'), http2 = require('http2');
const { WebSocket, WebSocketServer } = require(modules + '/ws');

const settings = { enableConnectProtocol: connect === 'connect', maxConcurrentStreams: 200 };
const server = certificate
    ? http2.createSecureServer({ settings, allowHTTP1: true, cert: fs.readFileSync(certificate), key: fs.readFileSync(key) })
    : http2.createServer({ settings });

function serve(socket, version, abort) {
    socket.on('error', () => {});
    socket.on('message', (data, isBinary) => {
        const text = isBinary ? '' : data.toString();
        if (text === 'version') socket.send(version);
        else if (text === 'abort') abort();
        else if (text.startsWith('close ')) {
            const [, code, reason] = text.match(/^close (\d+) (.*)$/);
            socket.close(Number(code), reason);
        } else socket.send(data, { binary: isBinary });
    });
}

server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    if (headers[':protocol'] !== 'websocket') {
        stream.respond({ ':status': 200 });
        return stream.end('2.0');
    }
    stream.respond({ ':status': 200, 'sec-websocket-protocol': 'chat' });
    // What ws asks of a socket, and a stream has not.
    stream.setNoDelay = () => {};
    const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30000 });
    stream.setTimeout = () => {};
    socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 0, skipUTF8Validation: false, allowSynchronousEvents: true });
    serve(socket, '2', () => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR));
});
const upgrades = new WebSocketServer({ noServer: true, handleProtocols: () => 'chat' });
server.on('upgrade', (request, connection, head) => {
    upgrades.handleUpgrade(request, connection, head, (socket) => serve(socket, '1.1', () => connection.destroy()));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
