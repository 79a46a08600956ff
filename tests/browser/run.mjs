// A dashboard in a real browser, on another origin, against the real muelle and a real engine: what a person sees has to change by itself.
//
// MUELLE_BIN, CHROMIUM: the programs. DOCKER_HOST=unix://…: the engine. Prints a line per check, and at the end how many passed and failed.
// Speaks to the engine without the docker command, which need not be installed, and pulls nothing: the image is busybox alone.
import { execFileSync, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const muelleBin = path.resolve(process.env.MUELLE_BIN ?? path.join(import.meta.dirname ?? '.', '../../target/debug/muelle'));
const chromiumBin = process.env.CHROMIUM ?? '/usr/bin/chromium';
const engineSocket = (process.env.DOCKER_HOST ?? 'unix:///var/run/docker.sock').replace(/^unix:\/\//, '');
const WHOLE_RUN_MS = 240_000;

let passed = 0;
let failed = 0;
const undo = []; // what has to be taken back, last thing first
let cleaning; // set as soon as that has begun
let lastCall = Promise.resolve();

async function check(name, action) {
  if (cleaning) return;
  try {
    const detail = await action();
    passed += 1;
    console.log(`ok      ${name}${detail ? ` (${detail})` : ''}`);
  } catch (failure) {
    if (cleaning) return; // what fails now only shows that
    failed += 1;
    console.log(`FAILED  ${name}: ${failure.message.trim()}`);
  }
}

// Waits for a condition; says the last state it saw when that does not come.
async function until(what, milliseconds, probe) {
  const deadline = Date.now() + milliseconds;
  for (;;) {
    const { done, state } = await probe();
    if (done) return done;
    if (Date.now() > deadline) throw new Error(`no ${what} within ${milliseconds / 1000} s; last seen: ${JSON.stringify(state)}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

function engine(method, target, { body, type = 'application/json', accept = [] } = {}) {
  // Taking back needs only GET and DELETE; the run must not make anything new meanwhile.
  if (cleaning && method === 'POST') return Promise.reject(new Error('ended'));
  return lastCall = new Promise((resolve, reject) => {
    const headers = body ? { 'Content-Type': type, 'Content-Length': body.length } : { 'Content-Length': 0 };
    const request = http.request({ socketPath: engineSocket, method, path: target, headers, timeout: 30_000 }, response => {
      let text = '';
      response.setEncoding('utf8').on('data', part => { text += part; }).on('error', reject).on('end', () => {
        const fine = response.statusCode < 400 || accept.includes(response.statusCode);
        if (fine) resolve(text);
        else reject(new Error(`the engine refused ${method} ${target}: ${response.statusCode} ${text.trim()}`));
      });
    });
    request.on('error', reject).on('timeout', () => request.destroy(new Error(`the engine does not answer ${method} ${target}`)));
    request.end(body);
  });
}

// A container that is busy on and off, and holds more memory each second, so that its figures differ from one sample to the next.
async function startContainer(folder) {
  const name = `muelle-test-browser-${process.pid}`;
  const busy = `n=0
    while :; do
      n=$(( (n + 3) % 17 ))
      /bin/busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=$(( n + 1 )) 2>/dev/null
      i=0; while [ $i -lt $(( n * 5000 )) ]; do i=$(( i + 1 )); done
      /bin/busybox sleep 1
    done`;
  mkdirSync(path.join(folder, 'image/bin'), { recursive: true });
  copyFileSync(execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim(), path.join(folder, 'image/bin/busybox'));
  const rootfs = execFileSync('tar', ['-C', path.join(folder, 'image'), '-c', 'bin'], { maxBuffer: 64 << 20 });
  await importImage(name, rootfs, []);
  for (const [app, words] of Object.entries(APPS)) {
    await importImage(`${name}-${app}`, rootfs, ['EXPOSE 8080', `CMD ${JSON.stringify(['/bin/busybox', 'sh', '-c', words])}`]);
  }
  undo.push(() => engine('DELETE', `/containers/${name}?force=1&v=1`, { accept: [404] }));
  const options = { Image: name, Cmd: ['/bin/busybox', 'sh', '-c', busy], Labels: { 'muelle.test': '1' }, HostConfig: { NanoCpus: 5e8 } };
  await engine('POST', `/containers/create?name=${name}`, { body: Buffer.from(JSON.stringify(options)) });
  await engine('POST', `/containers/${name}/start`);
  return name;
}

// Two apps that take a while to start: one that does so each time, one that does not start again.
const APPS = {
  slow: `/bin/busybox mkdir -p /www; echo '<h1>the app</h1>' >/www/index.html; /bin/busybox sleep 2; exec /bin/busybox httpd -f -p 8080 -h /www`,
  broken: `[ -f /ran ] && { /bin/busybox sleep 2; echo 'its <b>last</b> words'; exit 3; }
    /bin/busybox mkdir -p /www; echo >/ran; exec /bin/busybox httpd -f -p 8080 -h /www`,
};

async function importImage(name, rootfs, changes) {
  undo.push(() => engine('DELETE', `/images/${name}?force=1`, { accept: [404] }));
  const query = ['LABEL muelle.test=1', ...changes].map(change => `&changes=${encodeURIComponent(change)}`).join('');
  const log = await engine('POST', `/images/create?fromSrc=-&repo=${name}&tag=latest${query}`, { body: rootfs, type: 'application/x-tar' });
  if (/"error"/.test(log)) throw new Error(`the engine refused the image: ${log}`);
}

// A repository with one commit, behind git's own HTTP server. Returns its address.
async function serveRepository(folder, files) {
  const root = path.join(folder, 'git');
  const work = path.join(folder, 'work');
  const env = { PATH: process.env.PATH, HOME: '/dev/null', GIT_CONFIG_NOSYSTEM: '1', GIT_PROJECT_ROOT: root, GIT_HTTP_EXPORT_ALL: '1' };
  const git = (...args) => execFileSync('git', ['-c', 'user.name=Ana', '-c', 'user.email=ana@example.org', '-C', work, ...args], { env });
  mkdirSync(root);
  mkdirSync(work);
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(work, name), text);
  git('init', '--quiet', '--initial-branch=main');
  git('add', '.');
  git('commit', '--quiet', '--message=A page');
  git('clone', '--quiet', '--bare', work, path.join(root, 'site.git'));
  const server = http.createServer((request, response) => {
    const { pathname, search } = new URL(request.url, 'http://localhost');
    const cgi = spawn('git', ['http-backend'], { stdio: ['pipe', 'pipe', 'ignore'], env: { ...env, REQUEST_METHOD: request.method,
      PATH_INFO: pathname, QUERY_STRING: search.slice(1), CONTENT_TYPE: request.headers['content-type'] ?? '',
      CONTENT_LENGTH: request.headers['content-length'] ?? '', HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      GIT_PROTOCOL: request.headers['git-protocol'] ?? '', REMOTE_ADDR: '127.0.0.1' } });
    const parts = [];
    request.pipe(cgi.stdin).on('error', () => {});
    cgi.stdout.on('data', part => parts.push(part)).on('end', () => {
      const answer = Buffer.concat(parts);
      const end = answer.indexOf('\r\n\r\n');
      const headers = answer.toString('latin1', 0, end).split('\r\n').map(line => line.split(/: (.*)/, 2));
      const status = headers.find(([name]) => name === 'Status')?.[1] ?? '200';
      response.writeHead(parseInt(status, 10), Object.fromEntries(headers.filter(([name]) => name !== 'Status'))).end(answer.subarray(end + 4));
    });
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', () => {
      undo.push(() => { server.closeAllConnections(); server.close(); });
      resolve(`http://127.0.0.1:${server.address().port}/site.git`);
    });
  });
}

function serve(port, host) {
  const page = readFileSync(new URL('page.html', import.meta.url));
  const server = http.createServer((request, response) => {
    if (request.url.startsWith('/favicon')) response.writeHead(204).end();
    else response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(page);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, host, () => {
      undo.push(() => { server.closeAllConnections(); server.close(); });
      resolve(`http://${host}:${server.address().port}`);
    });
  });
}

// The muelle under test, in a folder of its own. Returns where its API is.
async function startMuelle(folder, origins, more = '[proxy]\nlisten = []\n') {
  mkdirSync(folder, { recursive: true });
  const data = path.join(folder, 'data');
  const config = path.join(folder, 'config.toml');
  const cors = origins ? `cors_origins = ${JSON.stringify(origins)}\n` : '';
  writeFileSync(config, `data_dir = ${JSON.stringify(data)}\n[api]\nlisten = "127.0.0.1:0"\n${cors}[deploy]\nallow_http = true\n${more}`);
  let said = '';
  if (cleaning) throw new Error('ended before muelle started');
  const muelle = spawn(muelleBin, ['serve', '--config', config], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise(resolve => muelle.once('exit', resolve).once('error', failure => { said += failure.message; resolve(); }));
  muelle.stderr.setEncoding('utf8').on('data', part => { said += part; });
  undo.push(async () => {
    if (failed) console.log(`\nmuelle said:\n${said.split('\n').slice(-40).join('\n')}`);
    await removeMade(data);
  });
  undo.push(async () => {
    muelle.kill('SIGTERM');
    const timer = setTimeout(() => { console.log('muelle does not end on SIGTERM'); failed += 1; muelle.kill('SIGKILL'); }, 15_000);
    await ended;
    clearTimeout(timer);
  });
  return until('line with the address', 15_000, () => {
    if (muelle.exitCode !== null) throw new Error(`muelle ended with ${muelle.exitCode}`);
    const port = said.match(/listening on http:\/\/127\.0\.0\.1:(\d+)/)?.[1];
    return { done: port && `http://127.0.0.1:${port}/api`, state: said };
  });
}

// The network muelle-<instance> outlives muelle, and so does what a check that failed has not deleted. Only what is of the instance that our
// data folder knows of is ours to remove.
async function removeMade(data) {
  if (!existsSync(data)) return;
  const known = readdirSync(data, { withFileTypes: true }).filter(entry => entry.isFile()).map(entry => readFileSync(path.join(data, entry.name)));
  const gone = { accept: [404] };
  for (const { Id, Name } of JSON.parse(await engine('GET', '/networks'))) {
    const instance = Name.match(/^muelle-(.+)/)?.[1];
    if (!instance || !known.some(bytes => bytes.includes(instance))) continue;
    const filters = encodeURIComponent(JSON.stringify({ label: [`muelle.instance=${instance}`] }));
    for (const it of JSON.parse(await engine('GET', `/containers/json?all=1&filters=${filters}`))) await engine('DELETE', `/containers/${it.Id}?force=1`, gone);
    for (const it of JSON.parse(await engine('GET', `/images/json?filters=${filters}`))) await engine('DELETE', `/images/${it.Id}?force=1`, gone);
    await engine('DELETE', `/networks/${Id}`, gone);
  }
}

async function openBrowser(folder) {
  const launched = chromium.launchPersistentContext(path.join(folder, 'profile'), {
    executablePath: chromiumBin,
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
    handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false, // it is closed with everything else
  });
  undo.push(() => launched.then(context => context.close(), () => {}));
  const context = await launched;
  context.setDefaultTimeout(10_000);
  return context;
}

async function run() {
  const folder = mkdtempSync(path.join(tmpdir(), 'muelle-browser-'));
  undo.push(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

  // An origin that is allowed without any configuration, if its port is free.
  const usual = await serve(5173, '127.0.0.1').catch(() => null);
  const origin = usual ?? await serve(0, '127.0.0.1');
  const foreign = await serve(0, '127.0.0.1');
  const container = await startContainer(folder);
  const api = await startMuelle(folder, usual ? null : [origin]);
  const context = await openBrowser(folder);
  const page = await context.newPage();

  const text = selector => page.textContent(selector);
  // Every line of the page's log after the first `from` ones, with the time it was written.
  const log = (from = 0) => page.$$eval('#log li', (lines, from) => lines.slice(from).map(line => ({ what: line.textContent, at: Number(line.dataset.at) })), from);
  const logged = (what, milliseconds, from = 0) => until(`"${what}"`, milliseconds, async () => {
    const lines = await log(from);
    const failure = await text('#failure');
    if (failure) throw new Error(`the page shows: ${failure}`);
    return { done: lines.find(line => line.what === what), state: lines.slice(-8).map(line => line.what) };
  });

  await page.goto(`${origin}/?api=${encodeURIComponent(api)}`);
  await page.evaluate(() => { window.neverReloaded = true; });

  await check('a page of another origin registers and its stream says connected', async () => {
    await page.fill('#register [name=name]', 'Ana Pérez');
    await page.fill('#register [name=email]', 'ana@example.org');
    await page.fill('#register [name=password]', 'correct horse battery staple');
    await page.click('#register button');
    await logged('connected', 10_000);
    return origin;
  });
  if (failed) return; // nothing below could be told apart from this

  await check('an adopted container is shown as running', async () => {
    await page.fill('#adopt [name=name]', 'Mi App');
    await page.fill('#adopt [name=container]', container);
    await page.click('#adopt button');
    await until('running', 15_000, async () => {
      const state = await page.$$eval('#projects .name, #projects .status, #failure', cells => cells.map(cell => cell.textContent).join(' '));
      return { done: state === 'Mi App running ', state };
    });
  });
  if (failed) return;

  await check('its CPU and memory change twice with no reload', async () => {
    const seen = [];
    await until('third pair of figures', 40_000, async () => {
      const figures = `${await text('#projects .cpu')} % ${await text('#projects .memory')} MB`;
      if (/^[\d.]+ % [\d.]+ MB$/.test(figures) && figures !== seen.at(-1)) seen.push(figures);
      return { done: seen.length >= 3, state: seen };
    });
    if (!await page.evaluate(() => window.neverReloaded)) throw new Error('the page was loaded again');
    return seen.join(', ');
  });

  await check('a stop from outside is shown within a second', async () => {
    const from = (await log()).length;
    await engine('POST', `/containers/${container}/stop?t=0`);
    const stopped = Date.now();
    const { at } = await logged('Mi App stopped', 10_000, from);
    if (at - stopped > 1000) throw new Error(`it took ${at - stopped} ms`);
    if (await text('#projects .status') !== 'stopped') throw new Error(`the status shown is ${await text('#projects .status')}`);
    return `${at - stopped} ms after the engine's answer`;
  });

  await check('started from the page it is deploying, then running', async () => {
    const from = (await log()).length;
    await page.click('#projects button');
    const deploying = await logged('Mi App deploying', 10_000, from);
    const running = await logged('Mi App running', 30_000, from);
    if (deploying.at > running.at) throw new Error('in the wrong order');
  });

  await check('a repository becomes a running project, and each step is seen', async () => {
    const repository = await serveRepository(folder, {
      Dockerfile: `FROM ${container}\nCOPY index.html /site/index.html\nEXPOSE 8080\nCMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"]\n`,
      'index.html': 'hello from a repository',
    });
    const from = (await log()).length;
    const { project } = await page.evaluate(body => call('POST', '/projects', body), { name: 'Site', github_url: repository });
    if (project.status !== 'deploying') throw new Error(`it was answered as ${project.status}`);
    const running = await logged('Site running', 60_000, from);
    const lines = await log(from);
    const deploying = lines.find(line => line.what === 'Site deploying');
    if (!(deploying?.at <= running.at)) throw new Error(`it was not seen to be deploying: ${JSON.stringify(lines)}`);
    const told = lines.filter(line => line.what.startsWith(project.id)).map(line => line.what.split(' '));
    const steps = told.map(([, step]) => step).filter((step, i, all) => step !== all[i - 1]);
    if (steps.join() !== 'queued,clone,build,start,ready') throw new Error(`the steps were ${steps}`);
    const progress = told.map(([, , progress]) => Number(progress));
    if (progress[0] !== 0 || progress.at(-1) !== 100 || progress.some((it, i) => it < progress[i - 1])) throw new Error(`the progress was ${progress}`);
    const { project: { url } } = await page.evaluate(id => call('GET', `/projects/${id}`), project.id);
    const answer = await (await fetch(url)).text();
    if (answer !== 'hello from a repository') throw new Error(`it answers ${answer}`);
    await page.evaluate(id => call('DELETE', `/projects/${id}`), project.id);
    await until('end of what was built', 30_000, async () => {
      const filters = encodeURIComponent(JSON.stringify({ label: [`muelle.project=${project.id}`] }));
      const state = [await engine('GET', `/containers/json?all=1&filters=${filters}`), await engine('GET', `/images/json?filters=${filters}`)];
      return { done: state.every(list => list.trim() === '[]'), state };
    });
    return `${told.length} events, ${running.at - deploying.at} ms`;
  });

  await check('a page of a foreign origin is refused', async () => {
    // The same request from both pages: had it failed for another reason, the allowed page would see that, too.
    const ask = async page => page.evaluate(api => fetch(`${api}/projects`, { headers: { 'Content-Type': 'application/json' } })
      .then(response => response.status, failure => failure.name), api);
    const other = await context.newPage();
    await other.goto(foreign);
    const answers = { allowed: await ask(page), foreign: await ask(other) };
    await other.close();
    if (answers.allowed !== 401 || answers.foreign !== 'TypeError') throw new Error(JSON.stringify(answers));
  });

  await check('the stream ends within 3 s of logging out', async () => {
    const from = (await log()).length;
    await page.click('#logout');
    const out = await logged('logged out', 10_000, from);
    const { at } = await logged('stream ended', 10_000, from);
    if (at - out.at > 3000) throw new Error(`it took ${at - out.at} ms`);
    return `${at - out.at} ms`;
  });

  await sleepers(path.join(folder, 'sleepers'), container, context);
}

// Apps that sleep, opened in the browser: a person waits and reloads nothing.
async function sleepers(folder, images, context) {
  const api = await startMuelle(folder, null,
    '[proxy]\nlisten = "127.0.0.1:0"\n[metrics]\ninterval = "1s"\n[idle]\nafter = "1s"\ngrace = "0s"\n');
  const call = async (method, target, body, token) => {
    const headers = { 'Content-Type': 'application/json', ...(token && { Authorization: `Bearer ${token}` }) };
    const answer = await fetch(`${api}${target}`, { method, headers, body: body && JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${method} ${target}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  };
  const { token } = await call('POST', '/auth/register', { email: 'ana@example.com', password: 'correct horse', name: 'Ana' });
  // Numbers come each second while somebody looks.
  const viewer = http.get(`${api}/containers/events?token=${token}`, answer => answer.resume()).on('error', () => {});
  undo.push(() => { viewer.destroy(); });
  const asleep = async app => {
    const { project } = await call('POST', '/projects', { name: app, image: `${images}-${app}:latest` }, token);
    return until(`sleep of ${app}`, 40_000, async () => {
      const now = (await call('GET', `/projects/${project.id}`, undefined, token)).project;
      return { done: now.status === 'inactive' && now, state: now.status };
    });
  };

  await check('an app that sleeps is opened: the page says that it wakes, and then is the app', async () => {
    const { url } = await asleep('slow');
    const page = await context.newPage();
    const answer = await page.goto(url);
    const first = await page.textContent('#sentence');
    if (answer.status() !== 503 || !/asleep|starting|getting ready/.test(first)) throw new Error(`${answer.status()} ${first}`);
    await page.waitForSelector('h1:text-is("the app")', { timeout: 20_000 });
    await page.close();
    return first;
  });

  await check('one that does not start any more says so, with what it wrote, and stays', async () => {
    const { url } = await asleep('broken');
    const page = await context.newPage();
    await page.goto(url);
    await page.evaluate(() => { window.neverReloaded = true; });
    await page.waitForSelector('#sentence:text("This app did not start. It is tried again if somebody opens it in")', { timeout: 20_000 });
    const wrote = await page.textContent('pre:visible');
    if (!wrote.includes('its <b>last</b> words')) throw new Error(wrote);
    if (!await page.evaluate(() => window.neverReloaded)) throw new Error('the page was loaded again');
    if (await page.isVisible('progress')) throw new Error('it still spins');
    await page.close();
    return wrote;
  });
}

function cleanUp() {
  return cleaning ??= takeBack();
}

async function takeBack() {
  await lastCall.catch(() => {}); // a container that is just being made can be removed only then
  while (undo.length) {
    try {
      await undo.pop()();
    } catch (failure) {
      failed += 1;
      console.log(`FAILED  clean-up: ${failure.message}`);
    }
  }
}

async function end(reason, code) {
  console.log(`FAILED  ${reason}`);
  failed += 1;
  await cleanUp();
  console.log(`browser: ${passed} passed, ${failed} failed`);
  process.exit(code);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => end(`ended by ${signal}`, 130));
setTimeout(() => end(`not done after ${WHOLE_RUN_MS / 1000} s`, 1), WHOLE_RUN_MS).unref();

await run().catch(failure => {
  if (cleaning) return;
  failed += 1;
  console.log(`FAILED  set-up: ${failure.stack}`);
});
await cleanUp();
console.log(`browser: ${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
