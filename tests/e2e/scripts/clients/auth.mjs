// Clients with credentials for the proxy. Arguments: CLIENT MODULES PROXY NODE NODES CA NAME PASSWORD.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { json } from 'node:stream/consumers';

const [client, modules, proxy, node, nodes, authority, name, password] = process.argv.slice(2);
const need = createRequire(`${modules}/`);
const basic = (secret) => `Basic ${Buffer.from(`${name}:${secret}`).toString('base64')}`;
// A busy machine: what takes longer than this is stuck.
const TIMEOUT = 60_000;

function check(seen) {
  assert.deepEqual(Object.keys(seen.headers).filter((field) => field.startsWith('proxy-')), []);
}

const clients = {
  async undici() {
    const undici = need('undici');
    const ca = readFileSync(authority);
    const agent = (secret) => new undici.ProxyAgent({ uri: `http://${proxy}`, token: basic(secret), requestTls: { ca } });
    const dispatcher = agent(password);
    for (const url of [`http://${node}/echo`, `https://${nodes}/echo`]) {
      check(await (await undici.fetch(url, { dispatcher })).json());
      const refused = await undici.fetch(url, { dispatcher: agent('wrong') }).catch((error) => error);
      // undici does not say why.
      assert.ok(refused instanceof Error, url);
    }
  },

  // By hand, on one connection: asked, and then answered.
  async http() {
    const [host, port] = proxy.split(':');
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const get = async (headers) => {
      const request = http.get({ host, port, agent, path: `http://${node}/echo`, headers: { host: node, ...headers } });
      const [response] = await once(request, 'response');
      return response;
    };
    const asked = await get({});
    assert.equal(asked.statusCode, 407);
    assert.match(asked.headers['proxy-authenticate'], /^Basic realm="weir"/);
    asked.resume();
    await once(asked, 'end');
    const answer = await get({ 'proxy-authorization': basic(password) });
    assert.equal(answer.statusCode, 200);
    check(await json(answer));
    agent.destroy();
  },

  async chromium() {
    const { chromium } = need('playwright-core');
    const browser = await chromium.launch({
      executablePath: '/usr/bin/chromium',
      timeout: TIMEOUT,
      proxy: { server: 'http://each-context-has-its-own.invalid' },
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
    });
    const open = async (secret) => {
      const settings = { server: `http://${proxy}`, bypass: '<-loopback>', username: name, password: secret };
      const context = await browser.newContext({ proxy: settings, ignoreHTTPSErrors: true });
      context.setDefaultTimeout(TIMEOUT);
      return context.newPage();
    };
    const page = await open(password);
    for (const url of [`http://${node}/echo`, `https://${nodes}/echo`]) {
      const answer = await page.goto(url);
      assert.equal(answer.status(), 200, url);
      check(await answer.json());
      // More of them at once, on connections of their own.
      await page.evaluate((where) => Promise.all([1, 2, 3, 4].map(() => fetch(where).then((got) => got.json()))), url);
    }
    const other = await open('wrong');
    const refused = await other.goto(`http://${node}/echo`).catch((error) => error);
    assert.ok(refused instanceof Error || refused.status() === 407, String(refused));
    await browser.close();
  },
};

await clients[client]();
console.log('all well');
process.exit(0);
