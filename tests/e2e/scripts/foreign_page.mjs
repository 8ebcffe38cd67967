// A page of somebody else's in Chromium, against the admin API: it may neither read nor change anything.
//
// foreign_page.mjs NODE_MODULES PAGE-URL ADMIN-PORT: the page is served at PAGE-URL; rebound.example leads to this machine.

import { createRequire } from 'node:module';

const [modules, page_url, port] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)('playwright-core');

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  // A name that was the attacker's a moment ago is this machine's now (DNS rebinding).
  args: ['--no-sandbox', '--host-resolver-rules=MAP rebound.example 127.0.0.1', '--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests'],
});
const page = await browser.newPage();
await page.goto(page_url);

// Everything that a script on a page can try; what it gets to know of it.
const tried = await page.evaluate(async (port) => {
  const told = {};
  const hosts = [`127.0.0.1:${port}`, `localhost:${port}`];
  for (const host of hosts) {
    const at = `http://${host}`;
    for (const [name, path, init] of [
      ['read', '/proxy/status', {}],
      ['read with credentials', '/proxy/status', { credentials: 'include' }],
      ['read metrics', '/metrics', {}],
      ['change', '/proxy/stop', { method: 'POST' }],
      ['change with JSON', '/proxy/stop', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}' }],
      ['change with a token', '/proxy/stop', { method: 'POST', headers: { Authorization: 'Bearer x' } }],
      ['change unseen', '/proxy/stop', { method: 'POST', mode: 'no-cors', body: '{}' }],
      ['change as text', '/config/reload', { method: 'POST', mode: 'no-cors', headers: { 'Content-Type': 'text/plain' }, body: '{}' }],
      ['remove', '/admin/cache?pattern=*', { method: 'DELETE' }],
    ]) {
      try {
        const answer = await fetch(at + path, init);
        told[`${host} ${name}`] = answer.type === 'opaque' ? 'opaque' : `${answer.status} ${await answer.text()}`;
      } catch (error) {
        told[`${host} ${name}`] = 'refused';
      }
    }
    told[`${host} beacon`] = navigator.sendBeacon(at + '/proxy/stop', '{}') ? 'opaque' : 'refused';
    told[`${host} image`] = await new Promise((done) => {
      const image = new Image();
      image.onload = () => done('read');
      image.onerror = () => done('refused');
      image.src = at + '/docs';
    });
    told[`${host} script`] = await new Promise((done) => {
      const script = document.createElement('script');
      script.onload = () => done('read');
      script.onerror = () => done('refused');
      script.src = at + '/openapi.json';
      document.head.append(script);
    });
    told[`${host} websocket`] = await new Promise((done) => {
      const socket = new WebSocket(`ws://${host}/capture/events`);
      socket.onopen = () => done('read');
      socket.onerror = () => done('refused');
    });
    told[`${host} events`] = await new Promise((done) => {
      const events = new EventSource(at + '/flows?follow=true');
      events.onopen = () => done('read');
      events.onerror = () => { events.close(); done('refused'); };
    });
  }
  return told;
}, port);

for (const [what, outcome] of Object.entries(tried)) {
  if (outcome !== 'refused' && outcome !== 'opaque') throw new Error(`${what}: ${outcome}`);
}

// A form that sends itself, into a frame and into the window.
for (const path of ['/proxy/stop', '/config/reload', '/upgrade', '/cli/execute']) {
  const posted = await browser.newPage();
  await posted.goto(page_url);
  const [answer] = await Promise.all([
    posted.waitForNavigation(),
    posted.evaluate(({ port, path }) => {
      const form = document.createElement('form');
      form.method = 'POST';
      form.enctype = 'text/plain';
      form.action = `http://127.0.0.1:${port}${path}`;
      form.innerHTML = `<input name='{"binary":"/bin/sh","x":"' value='"}'>`;
      document.body.append(form);
      form.submit();
    }, { port, path }),
  ]);
  if (answer.status() !== 403) throw new Error(`a form to ${path}: ${answer.status()}`);
  await posted.close();
}

// By a name that leads here: for the browser it is the same site.
const rebound = await browser.newPage();
for (const path of ['/proxy/status', '/openapi.json', '/metrics', '/docs']) {
  const answer = await rebound.goto(`http://rebound.example:${port}${path}`);
  if (answer.status() !== 403) throw new Error(`rebound ${path}: ${answer.status()}`);
  const read = await rebound.evaluate(async (path) => (await fetch(path)).status, path);
  if (read !== 403) throw new Error(`rebound script ${path}: ${read}`);
}

// The user's own look at it works, and runs nothing.
const own = await browser.newPage();
const requests = [];
own.on('request', (request) => requests.push(request.url()));
const docs = await own.goto(`http://127.0.0.1:${port}/docs`);
if (docs.status() !== 200 || !(await own.textContent('h1')).includes('admin API')) throw new Error('no docs');
const foreign = requests.filter((url) => !url.startsWith(`http://127.0.0.1:${port}/`));
if (foreign.length) throw new Error(`the page asks for ${foreign}`);
await browser.close();
console.log(`${Object.keys(tried).length} attempts, all well`);
