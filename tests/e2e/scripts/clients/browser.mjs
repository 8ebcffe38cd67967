// Chromium through a proxy, driven by Playwright. Arguments: MODULES FOLDER PROXY NODE NODES WS WSS VIA, addresses as
// host:port; NODES and WSS speak TLS, and VIA is whether that is intercepted. In HOME is a certificate database that
// trusts their authority.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [modules, folder, proxy, node, nodes, ws, wss, via] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)('playwright-core');
const PARTS = 60;
const SIZE = 5 << 20;
// A busy machine: what takes longer than this is stuck.
const TIMEOUT = 60_000;

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  downloadsPath: folder,
  timeout: TIMEOUT,
  proxy: { server: 'http://each-context-has-its-own.invalid' },
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
});

// Everything that a page does, in the clear and over TLS.
async function visit(page, site, version) {
  await page.goto(`${site}/page?${PARTS}`);
  await page.waitForFunction((count) => document.title === String(count), 2 * PARTS);
  const protocols = await page.evaluate(() =>
    [...new Set(performance.getEntriesByType('resource').map((entry) => entry.nextHopProtocol))]);
  assert.deepEqual(protocols, [version], site);
  const echoed = await page.evaluate(async (content) => {
    const response = await fetch('/echo?a=b', { method: 'POST', body: content });
    return response.json();
  }, 'x'.repeat(300_000));
  assert.equal(echoed.length, 300_000);
  const lines = await page.evaluate(async () => {
    const reader = (await fetch('/stream')).body.pipeThrough(new TextDecoderStream()).getReader();
    const read = [];
    for (let nth = 1; nth <= 3; nth += 1) {
      read.push((await reader.read()).value);
      if (nth < 3) await fetch('/next');
    }
    return read;
  });
  assert.deepEqual(lines, ['line 1\n', 'line 2\n', 'line 3\n']);
  return echoed;
}

// A page's WebSocket: what it was sent, and how it ended.
async function chat(page, url) {
  const said = await page.evaluate(async (address) => {
    const socket = new WebSocket(address, ['chat']);
    const next = (kind) => new Promise((resolve, reject) => {
      socket.addEventListener(kind, resolve, { once: true });
      socket.addEventListener('error', () => reject(new Error(`no ${kind}`)), { once: true });
    });
    await next('open');
    const answers = [];
    for (const message of ['a text', 'x'.repeat(1 << 20)]) {
      socket.send(message);
      answers.push((await next('message')).data.length);
    }
    socket.send('close 4001 enough');
    const { code, reason } = await next('close');
    return [socket.protocol, ...answers, code, reason];
  }, url);
  assert.deepEqual(said, ['chat', 6, 1 << 20, 4001, 'enough'], url);
}

async function download(page, site) {
  await page.goto(`${site}/page?0`);
  const [saved] = await Promise.all([
    page.waitForEvent('download'),
    page.evaluate((size) => { location.href = `/download?${size}`; }, SIZE),
  ]);
  const sum = (bytes) => createHash('sha256').update(bytes).digest('hex');
  assert.equal(sum(readFileSync(await saved.path())), sum(Buffer.alloc(SIZE, 'weir')));
}

for (const server of [`http://${proxy}`, `https://localhost:${proxy.split(':')[1]}`, `socks5://${proxy}`]) {
  const context = await browser.newContext({ proxy: { server, bypass: '<-loopback>' } });
  context.setDefaultTimeout(TIMEOUT);
  const page = await context.newPage();
  // With a proxy that it reaches over TLS, Chromium speaks HTTP/2.
  const plain = await visit(page, `http://${node}`, server.startsWith('https') ? 'h2' : 'http/1.1');
  assert.equal('via' in plain.headers, !server.startsWith('socks5'), JSON.stringify(plain));
  await chat(page, `ws://${ws}/chat`);
  await download(page, `http://${node}`);
  const secure = await visit(page, `https://${nodes}`, 'h2');
  assert.equal('via' in secure.headers, via === 'true');
  assert.equal(secure.version, '2.0');
  await chat(page, `wss://${wss}/chat`);
  await download(page, `https://${nodes}`);
  if (!server.startsWith('socks5')) {
    // A person sees why, in words.
    const refused = await page.goto('http://127.0.0.1:2/');
    assert.equal(refused.status(), 502);
    assert.match(await page.innerText('body'), /refused/);
    assert.match(refused.headers()['content-type'], /^text\/html/);
  }
  await assert.rejects(page.goto('https://127.0.0.1:2/'));
  await context.close();
}
await browser.close();
console.log('all well');
