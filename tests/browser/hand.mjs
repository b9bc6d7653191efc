// A hand on a real browser. Arguments: the microphone's WAV file, and a folder for the profile.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import path from 'node:path';

const here = path.dirname(fileURLToPath(import.meta.url));
const web = path.join(here, '../../web');
const library = createRequire(path.join(web, 'package.json'));
const { chromium } = library('playwright-core');
const [microphone, profile] = process.argv.slice(2);

const PATIENCE_MS = 40_000;
const SAMPLES = 8;
const ENOUGH = 7;
const BETWEEN_MS = 100;

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.TANDEM_CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  viewport: { width: 1366, height: 768 },
  locale: 'en-GB',
  ignoreDefaultArgs: ['--mute-audio', '--headless', '--headless=old'],
  args: [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-default-apps', '--allow-loopback-in-peer-connection',
    '--autoplay-policy=no-user-gesture-required', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
    `--use-file-for-fake-audio-capture=${microphone}`,
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
  ],
});
await context.addInitScript({ path: path.join(here, 'ear.js') });
const page = context.pages()[0] ?? await context.newPage();
page.setDefaultTimeout(PATIENCE_MS);
const said = [];
page.on('console', (message) => said.push(`${message.type()}: ${message.text()}`));
page.on('pageerror', (error) => said.push(`error: ${error.message}`));

/** JsSIP as one script that makes `window.JsSIP`. */
async function jssip() {
  const { rolldown } = await import(pathToFileURL(library.resolve('rolldown')).href);
  const bundle = await rolldown({ input: 'jssip', cwd: web, platform: 'browser', logLevel: 'silent' });
  const { output } = await bundle.generate({ format: 'iife', name: 'JsSIP' });
  await bundle.close();
  return output[0].code;
}

const later = (ms) => new Promise((done) => setTimeout(done, ms));
const control = ({ role, name }) => page.getByRole(role, { name, exact: true });

/** Asks the page's ear until 7 of 8 samples in a row agree. */
async function vote(what, agrees) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const samples = [];
    for (let n = 0; n < SAMPLES; n += 1) {
      samples.push(await page.evaluate(() => window.tandemEar()));
      await later(BETWEEN_MS);
    }
    if (samples.filter((one) => one && agrees(one)).length >= ENOUGH) return samples[SAMPLES - 1];
    if (Date.now() > deadline) throw new Error(`not heard: ${what}; the last: ${JSON.stringify(samples[SAMPLES - 1])}`);
  }
}

const only = (hz) => (one) => one.tones[hz] > 0.05
  && Object.entries(one.tones).every(([other, level]) => Number(other) === hz || level * 10 < one.tones[hz]);

/** Whether a tone comes and goes: looked at for three seconds, 85 ms of sound at a time. */
async function cadence({ hz }) {
  const found = { on: 0, off: 0, other: 0 };
  let last = null;
  for (let n = 0; n < 60; n += 1) {
    const one = await page.evaluate(() => window.tandemEar(4096));
    const now = one === null || one.rms < 0.02 ? 'off' : only(hz)(one) ? 'on' : 'other';
    if (now !== last) found[now] += 1;
    last = now;
    await later(BETWEEN_MS / 2);
  }
  return found;
}

const orders = {
  cadence,
  open: ({ url }) => page.goto(url).then(() => null),
  click: (what) => control(what).click().then(() => null),
  double: (what) => control(what).dblclick().then(() => null),
  fill: ({ label, text }) => page.getByLabel(label, { exact: true }).fill(text).then(() => null),
  text: (what) => control(what).innerText(),
  there: (what) => control(what).count(),
  value: ({ label }) => page.getByLabel(label, { exact: true }).inputValue(),
  hears: ({ hz }) => vote(`${hz} Hz`, only(hz)),
  silence: () => vote('silence', (one) => one.rms < 0.01),
  // Into any page of Tandem's address, which must be a real one: Chromium keeps others off the local network.
  stock: async () => {
    await page.evaluate(`${await jssip()}\nwindow.JsSIP = JsSIP;`);
    await page.evaluate(readFileSync(path.join(here, 'stock.js'), 'utf8'));
    return null;
  },
  stats: () => page.evaluate(() => window.tandemStats()),
  run: ({ code }) => page.evaluate(code),
  said: async () => said,
  picture: ({ file }) => page.screenshot({ path: file }).then(() => null),
};

process.stdout.write('{"ok":null}\n');
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    answer = { ok: await orders[order.do](order) ?? null };
  } catch (error) {
    answer = { error: String(error.message) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await context.close();
