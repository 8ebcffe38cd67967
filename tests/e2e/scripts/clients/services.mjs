// Chromium before apps of every framework, each below its prefix. Arguments: MODULES FOLDER GATE SHOTS APP...: FOLDER for
// downloads, SHOTS for pictures (- for none), and an app is FRAMEWORK,KEY,NAME.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [modules, folder, gate, shots, ...apps] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)('playwright-core');
// A busy machine: what takes longer than this is stuck.
const TIMEOUT = 60_000;

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  downloadsPath: folder,
  timeout: TIMEOUT,
  args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
});
const context = await browser.newContext();
context.setDefaultTimeout(TIMEOUT);

const does = {
  async streamlit(page, name) {
    await page.getByText(`counted 0 by ${name}`).waitFor();
    for (const count of [1, 2]) {
      await page.getByRole('button', { name: 'Count' }).click();
      await page.getByText(`counted ${count} by ${name}`).waitFor();
    }
    await page.waitForFunction(() => [...document.images].some((image) => image.naturalWidth > 0));
  },
  async fastapi(page, name) {
    await page.getByRole('heading', { name: `fastapi ${name}` }).waitFor();
    await page.getByRole('button', { name: 'Ask' }).click();
    await page.getByText(`${name} was asked for /a`).waitFor();
    await page.getByRole('button', { name: 'Chat' }).click();
    await page.getByText(`talk hello from ${name}`).waitFor();
    await page.locator('#go').click();
    await page.getByRole('heading', { name: `${name} at ${name}` }).waitFor();
  },
  async flask(page, name) {
    await page.locator('input').fill(`words for ${name}`);
    await page.getByRole('button', { name: 'Say' }).click();
    await page.getByText(`words for ${name} at ${name}`).waitFor();
    const looks = await page.evaluate(() => [getComputedStyle(document.querySelector('#said')).color,
      document.querySelector('#picture').naturalWidth]);
    assert.deepEqual(looks, ['rgb(1, 2, 3)', 7]);
  },
  async dash(page, name) {
    await page.getByText(`${name} was told`).waitFor();
    await page.locator('#text').fill('words');
    await page.getByText(`${name} was told words`).waitFor();
  },
  async gradio(page, name) {
    await page.getByLabel('text').fill('you');
    await page.getByRole('button', { name: 'Greet' }).click();
    await page.waitForFunction((said) => [...document.querySelectorAll('input, textarea')].some((one) => one.value === said),
      `${name} greets you`);
  },
};

// Hosts that pages of frameworks ask for fonts and numbers: nobody is there, and nothing here depends on them.
const outside = (url) => !url.startsWith(`http://${gate}/`) && !url.startsWith(`ws://${gate}/`) && /^(http|ws)s?:/.test(url);
await context.route((url) => outside(url.href), (route) => route.abort());

async function visit([framework, key, name], page) {
  const bad = [];
  const shows = (response) => {
    if (response.status() >= 400 && !outside(response.url())) bad.push(`${response.status()} ${response.url()}`);
  };
  page.on('response', shows);
  await page.goto(`http://${gate}/proxy/${key}`);
  assert.ok(page.url().startsWith(`http://${gate}/proxy/${key}/`), page.url());
  await does[framework](page, name);
  assert.ok(page.url().startsWith(`http://${gate}/proxy/${key}/`), `${framework} has left its prefix: ${page.url()}`);
  if (shots !== '-') await page.screenshot({ path: `${shots}/${framework}-${name}.png` });
  page.off('response', shows);
  assert.deepEqual(bad, [], framework);
}

// One after the other, and then all at one time, in one browser with one set of cookies.
const pages = [];
for (const app of apps) {
  const page = await context.newPage();
  await visit(app.split(','), page).catch((error) => { throw new Error(`${app}: ${error.stack}`); });
  pages.push(page);
}
await Promise.all(apps.map((app, nth) => visit(app.split(','), pages[nth]).catch((error) => {
  throw new Error(`${app}, beside others: ${error.stack}`);
})));
// No cookie of one is for another.
const paths = (await context.cookies()).filter((cookie) => cookie.name !== 'weir-service').map((cookie) => cookie.path);
assert.ok(paths.length > 0 && paths.every((path) => path.startsWith('/proxy/')), JSON.stringify(paths));
await browser.close();
console.log('all well');
