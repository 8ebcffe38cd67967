// node's HTTP clients through a proxy. Arguments: CLIENT MODULES PROXY NODE NODES NGINX NGINXS CA WS, addresses as
// host:port; NODES and NGINXS speak TLS with a certificate of CA; MODULES has undici.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { createRequire } from 'node:module';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import tls from 'node:tls';

const [client, modules, proxy, node, nodes, nginx, nginxs, authority, websocket] = process.argv.slice(2);
const undici = createRequire(`${modules}/`)('undici');
const ca = readFileSync(authority);
const content = Buffer.alloc(2 << 20, 'what is sent');
const sum = createHash('sha256').update(content).digest('hex');
const MANY = 40;

// What /echo says has arrived: `forwarded` by weir, or through a tunnel.
function check(seen, forwarded, expected = {}) {
  assert.equal('via' in seen.headers, forwarded, JSON.stringify(seen));
  assert.deepEqual(Object.keys(seen.headers).filter((name) => name.startsWith('proxy-')), []);
  for (const [name, value] of Object.entries(expected)) assert.equal(seen[name], value);
}

const clients = {
  // Requests of every kind through undici's ProxyAgent, which makes tunnels; the proxy in the clear and over TLS.
  async proxyAgent() {
    for (const uri of [`http://${proxy}`, `https://localhost:${proxy.split(':')[1]}`]) {
      for (const allowH2 of [false, true]) {
        const dispatcher = new undici.ProxyAgent({ uri, allowH2, requestTls: { ca, allowH2 }, proxyTls: { ca } });
        for (const [url, version] of [[`http://${node}`, '1.1'], [`https://${nodes}`, allowH2 ? '2.0' : '1.1']]) {
          check(await (await undici.fetch(`${url}/echo`, { dispatcher })).json(), false, { version });
          const sent = { dispatcher, method: 'POST', body: content };
          check(await (await undici.fetch(`${url}/echo`, sent)).json(), false, { sha256: sum });
          const stream = { dispatcher, method: 'PUT', body: Readable.from([content]), duplex: 'half' };
          check(await (await undici.fetch(`${url}/echo`, stream)).json(), false, { sha256: sum });
          await Promise.all(Array.from({ length: MANY }, async (_, nth) => {
            const { body } = await undici.request(`${url}/bytes?${nth * 1000}`, { dispatcher });
            assert.equal((await body.arrayBuffer()).byteLength, nth * 1000);
          }));
        }
        const large = await undici.fetch(`https://${nginxs}/large.bin`, { dispatcher });
        assert.equal((await large.arrayBuffer()).byteLength, 3 << 20);
        const cut = await undici.fetch(`http://${node}/cut`, { dispatcher });
        await assert.rejects(cut.text());
        await assert.rejects(undici.fetch('http://127.0.0.1:1/', { dispatcher }));
        await dispatcher.close();
      }
    }
  },

  async environment() {
    process.env.http_proxy = process.env.https_proxy = `http://${proxy}`;
    const tunnels = async () => {
      const dispatcher = new undici.EnvHttpProxyAgent({ requestTls: { ca }, connect: { ca } });
      for (const url of [`http://${node}/echo`, `https://${nodes}/echo`]) {
        check(await (await undici.fetch(url, { dispatcher })).json(), false);
      }
      await dispatcher.close();
    };
    await tunnels();
    process.env.no_proxy = '127.0.0.1,localhost';
    await tunnels();
  },

  async websocket() {
    const dispatcher = new undici.ProxyAgent({ uri: `http://${proxy}` });
    const socket = new undici.WebSocket(`ws://${websocket}/chat`, { dispatcher, protocols: ['chat'] });
    await once(socket, 'open');
    assert.equal(socket.protocol, 'chat');
    for (const message of ['a text', 'x'.repeat(1 << 20)]) {
      socket.send(message);
      assert.equal((await once(socket, 'message'))[0].data, message);
    }
    socket.send('close 4001 enough');
    const [closed] = await once(socket, 'close');
    assert.deepEqual([closed.code, closed.reason], [4001, 'enough']);
    await dispatcher.close();
  },

  // node's own client, which knows nothing of proxies: absolute-form by hand, over kept connections.
  async http() {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
    const [hostname, port] = proxy.split(':');
    const ask = async (path, options = {}, body = undefined) => {
      const request = http.request({ agent, hostname, port, path: `http://${node}${path}`, ...options });
      request.setHeader('Host', node);
      request.end(body);
      const [response] = await once(request, 'response');
      return { response, request };
    };
    for (let nth = 0; nth < 5; nth += 1) {
      const { response, request } = await ask('/echo', { method: 'POST' }, content);
      check(JSON.parse(await text(response)), true, { sha256: sum, method: 'POST' });
      assert.equal(request.reusedSocket, nth > 0);
    }
    const { response: hinted } = await ask('/hints');
    assert.equal(await text(hinted), 'after hints');
    // Waits for 100 (Continue) before it sends.
    const waiting = http.request({ agent, hostname, port, method: 'PUT', path: `http://${node}/echo`,
      headers: { Host: node, Expect: '100-continue', 'Content-Length': content.length } });
    waiting.flushHeaders();
    await once(waiting, 'continue');
    waiting.end(content);
    check(JSON.parse(await text((await once(waiting, 'response'))[0])), true, { sha256: sum });
    // Pieces arrive when they are sent, not when the response ends.
    const { response: streamed } = await ask('/stream');
    const pieces = streamed[Symbol.asyncIterator]();
    for (let nth = 1; nth <= 3; nth += 1) {
      assert.equal(String((await pieces.next()).value), `line ${nth}\n`);
      if (nth < 3) (await ask('/next')).response.resume();
    }
    const { response: missing } = await ask('/nothing');
    assert.equal(missing.statusCode, 404);
    missing.resume();
    agent.destroy();
  },

  // CONNECT by hand, and in the tunnel TLS with HTTP/1.1 and HTTP/2.
  async connect() {
    const [hostname, port] = proxy.split(':');
    const tunnel = async () => {
      const request = http.request({ hostname, port, method: 'CONNECT', path: nodes, agent: false });
      request.end();
      const [response, socket] = await once(request, 'connect');
      assert.equal(response.statusCode, 200);
      return socket;
    };
    const secure = tls.connect({ socket: await tunnel(), servername: 'localhost', ca });
    await once(secure, 'secureConnect');
    const request = https.request({ createConnection: () => secure, path: '/echo', method: 'POST' });
    request.end(content);
    check(JSON.parse(await text((await once(request, 'response'))[0])), false, { sha256: sum });

    const second = await tunnel();
    const session = http2.connect(`https://${nodes}`, {
      createConnection: () => tls.connect({ socket: second, servername: 'localhost', ca, ALPNProtocols: ['h2'] }),
    });
    await Promise.all(Array.from({ length: MANY }, async (_, nth) => {
      const stream = session.request({ ':path': '/echo', ':method': 'POST' });
      stream.end(content.subarray(0, nth * 1000));
      check(JSON.parse(await text(stream)), false, { length: nth * 1000, version: '2.0' });
    }));
    session.close();

    const refused = http.request({ hostname, port, method: 'CONNECT', path: '127.0.0.1:1', agent: false });
    refused.end();
    assert.equal((await once(refused, 'connect'))[0].statusCode, 502);
  },

  // The port itself speaks HTTP/2: prior knowledge in the clear, ALPN over TLS; the request names its server.
  async http2() {
    for (const [place, options] of [[`http://${proxy}`, {}], [`https://localhost:${proxy.split(':')[1]}`, { ca }]]) {
      const session = http2.connect(place, options);
      await Promise.all(Array.from({ length: MANY }, async (_, nth) => {
        const stream = session.request(
          { ':scheme': 'http', ':authority': node, ':path': '/echo', ':method': 'POST' });
        stream.end(content.subarray(0, nth * 1000));
        check(JSON.parse(await text(stream)), true, { length: nth * 1000 });
      }));
      const stream = session.request({ ':method': 'CONNECT', ':authority': node });
      await once(stream, 'response');
      stream.end(`GET /echo HTTP/1.1\r\nHost: ${node}\r\nConnection: close\r\n\r\n`);
      assert.match(await text(stream), /^HTTP\/1.1 200 OK\r\n/);
      session.close();
    }
  },
};

for (const name of Object.keys(process.env)) {
  if (name.toLowerCase().endsWith('_proxy')) delete process.env[name];
}
await clients[client]();
console.log('all well');
process.exit(0);
