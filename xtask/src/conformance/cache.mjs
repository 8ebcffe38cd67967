// Runs the HTTP caching test suite against a proxy and prints what came out as JSON: one object a test.
//
//   node cache.mjs SUITE forward|gateway ORIGIN_PORT PROXY_PORT [TEST_ID]
//
// SUITE is the folder of the npm package http-cache-tests, or a checkout of its source. The suite's own server is
// started on ORIGIN_PORT. As a forward proxy the proxy is asked in absolute-form: the suite knows nothing of proxies, so
// it talks to a relay in here that rewrites request targets and passes everything else on as it is.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, mode, originPort, proxyPort, only] = process.argv.slice(2)
const engine = existsSync(path.join(suite, 'test-engine')) ? path.join(suite, 'test-engine') : suite
const load = (...names) => import(pathToFileURL(path.resolve(...names)).href)

// Each request on a connection with an absolute target, once it is there as a whole; the rest of it untouched.
function relay (client) {
  const proxy = net.connect(proxyPort, '127.0.0.1')
  let buffered = Buffer.alloc(0)
  client.on('data', data => {
    buffered = Buffer.concat([buffered, data])
    for (;;) {
      const end = buffered.indexOf('\r\n\r\n') + 4
      if (end < 4) return
      const head = buffered.subarray(0, end).toString('latin1')
      const length = end + parseInt(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? '0')
      if (buffered.length < length) return
      const absolute = head.replace(' /', ` http://127.0.0.1:${originPort}/`)
      proxy.write(Buffer.concat([Buffer.from(absolute, 'latin1'), buffered.subarray(end, length)]))
      buffered = buffered.subarray(length)
    }
  })
  proxy.on('data', data => client.write(data))
  client.on('close', () => proxy.destroy())
  proxy.on('close', () => client.end())
  for (const socket of [client, proxy]) socket.on('error', () => { client.destroy(); proxy.destroy() })
}

const listening = server => new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server.address().port)))
const reachable = port => new Promise(resolve => {
  const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true) })
  socket.on('error', () => resolve(false))
})

const environment = {
  ...process.env,
  npm_config_protocol: 'http',
  npm_config_port: originPort,
  npm_config_pidfile: '/dev/null'
}
const server = spawn(process.execPath, [path.resolve(engine, 'server', 'server.mjs')], {
  cwd: suite, env: environment, stdio: ['ignore', only ? 'inherit' : 'ignore', 'inherit']
})
process.on('exit', () => server.kill())
while (!await reachable(originPort)) await new Promise(resolve => setTimeout(resolve, 50))

const port = mode === 'forward' ? await listening(net.createServer(relay)) : proxyPort
const base = `http://127.0.0.1:${port}`
const { runTests, getResults } = await load(engine, 'client', 'runner.mjs')
const suites = (await load(suite, 'tests', 'index.mjs')).default
for (const group of suites) {
  group.tests = group.tests.filter(test => !only || test.id === only)
  if (only) for (const test of group.tests) test.dump = true
}
// What the suite prints of its own goes to standard error: standard output is the result.
console.log = console.error
if (engine === suite) {
  const fetch = (await load(suite, 'node_modules', 'node-fetch', 'lib', 'index.mjs').catch(() =>
    load(suite, '..', 'node-fetch', 'lib', 'index.mjs'))).default
  await runTests(suites, fetch, false, base, 25)
} else {
  await runTests(suites, false, base)
}
const results = getResults()

const all = new Map(suites.flatMap(group => group.tests.map(test => [test.id, test])))
function passed (id) {
  if (results[id] !== true) return false
  return (all.get(id)?.depends_on ?? []).every(passed)
}
const rows = [...all.values()].filter(test => test.browser_only !== true).map(test => ({
  id: test.id,
  name: test.name,
  kind: test.kind ?? 'required',
  cdn: test.cdn_only === true,
  passed: passed(test.id),
  reason: results[test.id] === true
    ? `depends on ${(test.depends_on ?? []).filter(id => !passed(id)).join(', ')}`
    : String(results[test.id]?.[1] ?? 'not run')
}))
// A pipe takes 64 KiB at once: exiting before all of it went would cut the results off.
process.stdout.write(JSON.stringify(rows), () => process.exit(0))
