// An origin of node's own: HTTP/1.1 in the clear, and HTTPS with HTTP/2 or HTTP/1.1 by ALPN. Arguments: CERTIFICATE KEY.
// Prints both ports in one line. What a request gets depends on its path:
//   /echo      what arrived, as JSON: method, path, version, fields, the body's length and SHA-256, trailers
//   /trailers  a chunked answer with a trailer
//   /hints     103 Early Hints, then 200
//   /moved     302 to /echo
//   /stream    three lines, each sent on its own, the next one when the client has asked for /next
//   /cut       an answer that ends before its length
//   /bytes?N   N bytes
//   /page?N    a page of N images and N scripts, each of which counts itself in the title once it is there
//   /image?N, /script?N    its parts
//   /download?N            N bytes for a browser to save
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createSecureServer } from 'node:http2';

// The answers of /stream that wait for their next line.
const waiting = [];

function echo(request, response) {
  const hash = createHash('sha256');
  let length = 0;
  request.on('data', (piece) => { hash.update(piece); length += piece.length; });
  request.on('end', () => {
    const { method, url: path, httpVersion: version, headers, trailers } = request;
    const seen = { method, path, version, headers, trailers, length, sha256: hash.digest('hex') };
    const body = JSON.stringify(seen);
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    response.end(body);
  });
}

function stream(response) {
  response.writeHead(200, { 'content-type': 'text/plain' });
  let line = 0;
  const next = () => {
    line += 1;
    response.write(`line ${line}\n`);
    if (line === 3) response.end(); else waiting.push(next);
  };
  next();
}

const answers = {
  '/echo': echo,
  '/trailers': (request, response) => {
    response.writeHead(200, { trailer: 'x-sum' });
    response.write('with ');
    response.addTrailers({ 'x-sum': '42' });
    response.end('trailers');
  },
  '/hints': (request, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    response.end('after hints');
  },
  '/moved': (request, response) => response.writeHead(302, { location: '/echo' }).end(),
  '/stream': (request, response) => stream(response),
  '/next': (request, response) => {
    waiting.shift()?.();
    response.end('next');
  },
  '/cut': (request, response) => {
    response.writeHead(200, request.httpVersion === '2.0' ? {} : { 'content-length': 100 });
    response.write('half of it', () => (response.stream ?? request.socket).destroy());
  },
  '/bytes': (request, response) => response.end(Buffer.alloc(Number(request.url.split('?')[1]), 'weir')),
};

const page = (count) => `<!doctype html><title>0</title><link rel=icon href=data:,><script>
let here = 0;
function arrived() { here += 1; document.title = String(here); }
</script>${Array.from({ length: count }, (_, nth) =>
    `<img src="/image?${nth}" onload="arrived()"><script async src="/script?${nth}"></script>`).join('')}`;

Object.assign(answers, {
  '/page': (request, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end(page(Number(request.url.split('?')[1])));
  },
  '/image': (request, response) => {
    response.writeHead(200, { 'content-type': 'image/svg+xml' });
    response.end('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>');
  },
  '/script': (request, response) => {
    response.writeHead(200, { 'content-type': 'text/javascript' }).end('arrived();');
  },
  '/download': (request, response) => {
    const fields = { 'content-type': 'application/octet-stream', 'content-disposition': 'attachment; filename=saved' };
    response.writeHead(200, fields).end(Buffer.alloc(Number(request.url.split('?')[1]), 'weir'));
  },
});

function serve(request, response) {
  const answer = answers[request.url.split('?')[0]];
  if (answer) return answer(request, response);
  response.writeHead(404).end('no such path');
}

// An upload that is refused before its content is sent: no 100 (Continue).
function refuse(request, response) {
  if (request.url.startsWith('/refused')) return response.writeHead(403, { connection: 'close' }).end('not wanted');
  response.writeContinue();
  serve(request, response);
}

const [certificate, key] = process.argv.slice(2);
const plain = createServer(serve).on('checkContinue', refuse);
const secure = createSecureServer(
  { cert: readFileSync(certificate), key: readFileSync(key), allowHTTP1: true }, serve);
for (const server of [plain, secure]) {
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
}
console.log(plain.address().port, secure.address().port);
