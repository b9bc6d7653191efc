/**
 * The built pages in a real Chromium against the stand-in server: every screen is opened, used by
 * keyboard, checked by axe (WCAG A and AA), and photographed.
 *
 *     npm run build && npm run e2e        # CHROMIUM=/usr/bin/chromium SHOTS=/tmp/shots
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { start } from './mock-server.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const SHOTS = process.env.SHOTS ?? join(tmpdir(), 'shots');
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const ARGS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-default-apps', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

if (!existsSync(CHROMIUM)) {
  console.error(`no Chromium at ${CHROMIUM}`);
  process.exit(process.env.TANDEM_PEERS === 'required' ? 1 : 0);
}
mkdirSync(SHOTS, { recursive: true });

const launch = (args = ARGS) =>
  chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), 'desk-')), {
    executablePath: CHROMIUM, args, ignoreDefaultArgs: ['--mute-audio', '--headless', '--headless=old'], viewport: { width: 1366, height: 768 }, locale: 'en-US',
  });

const server = await start();
const root = `http://127.0.0.1:${server.port}`;
const { outside } = server;
let context = await launch();
let failures = 0;
let page;
const complaints = [];

function watch(next) {
  page = next;
  page.setDefaultTimeout(6000);
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  // A refused log-in is said on the console by the browser itself.
  page.on('console', (message) => { if (message.type() === 'error' && !/401|Failed to load resource/.test(message.text())) complaints.push(`console: ${message.text()}`); });
}

async function step(name, work) {
  const began = Date.now();
  try {
    await work();
    if (complaints.length) throw new Error(complaints.splice(0).join('\n'));
    console.log(`ok    ${name} (${Date.now() - began} ms)`);
  } catch (error) {
    failures += 1;
    console.error(`FAIL  ${name}\n${error.stack ?? error}`);
    await page.screenshot({ path: join(SHOTS, `failed-${failures}.png`) }).catch(() => null);
  }
}

const button = (name) => page.getByRole('button', { name, exact: true });
const field = (name) => page.getByLabel(name, { exact: true });
const region = (name) => page.getByRole('region', { name, exact: true });
const light = (name) => page.getByRole('status', { name, exact: true });
const shot = (name) => page.screenshot({ path: join(SHOTS, `${name}.png`) });
const says = (locator, text) => locator.filter({ hasText: text }).first().waitFor();
const gone = (locator) => locator.waitFor({ state: 'hidden' });
const submits = (card) => outside.asked().filter((one) => one.path === `/cards/${card}/submit`);

/** axe over the page; and nothing may need scrolling on a 1366 × 768 screen. */
async function look(name, scroll = false) {
  await page.waitForTimeout(250);
  await shot(name);
  await page.evaluate(AXE).catch(async () => { await page.addScriptTag({ content: AXE }); });
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join(' | ')}`), []);
  if (!scroll) {
    const over = await page.evaluate(() => [document.documentElement.scrollHeight - innerHeight, document.documentElement.scrollWidth - innerWidth]);
    assert.ok(over[0] <= 0 && over[1] <= 0, `scrolls by ${over}`);
  }
}

watch(context.pages()[0] ?? (await context.newPage()));

await step('a wrong password is told in words', async () => {
  await page.goto(root);
  await field('User').waitFor();
  await look('01-log-in');
  await page.keyboard.type('olena');
  await page.keyboard.press('Tab');
  await page.keyboard.type('wrong');
  await page.keyboard.press('Enter');
  await says(page.getByRole('alert'), 'wrong');
});

await step('log in by keyboard and start the shift with one key', async () => {
  await field('User').fill('olena');
  await field('Password').fill('olena');
  await page.keyboard.press('Enter');
  await button('Start shift').waitFor();
  await says(light('Data'), 'ok');
  await look('02-start');
  await page.keyboard.press('Enter');
  await says(region('Call'), 'Available');
  await says(light('Phone'), 'ok');
  await says(light('Sound'), 'ok');
  await look('03-desk-idle');
});

await step('a call is answered by itself, the order typed and saved by keyboard, and the card leaves', async () => {
  const { card } = outside.call({});
  await says(region('Call'), 'Talking');
  await says(region('Call'), '+380671234567');
  await page.waitForFunction(() => document.activeElement?.id === 'order-pickup');
  await look('04-talking');
  await page.keyboard.press('Alt+Digit1');
  assert.equal(await field('Pickup').inputValue(), 'Khreshchatyk 22');
  await field('Pickup').fill('Khreshchatyk 24');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter');
  await page.keyboard.type('now');
  await says(region('Order'), 'Draft kept');
  await look('05-card');
  await page.keyboard.press('Control+Enter');
  await gone(field('Pickup'));
  assert.equal(submits(card).length, 1);
  assert.equal(submits(card)[0].key, card);
  assert.deepEqual(submits(card)[0].body.fields, { pickup: 'Khreshchatyk 24', destination: 'Boryspil Airport, terminal D', when: 'now', class: '', comment: '' });
});

await step('mute, hold, keypad', async () => {
  await page.keyboard.press('F8');
  await says(region('Call'), 'muted');
  await look('06-muted');
  await page.keyboard.press('F8');
  await page.keyboard.press('F9');
  await says(region('Call'), 'On hold');
  await button('Resume').waitFor();
  await look('07-hold');
  await page.keyboard.press('F9');
  await says(region('Call'), 'Talking');
  await button('Keypad').click();
  await page.keyboard.type('5#');
  await says(page.getByRole('status', { name: 'Sent' }), '5#');
  await look('08-keypad');
  await page.keyboard.press('Escape');
  await says(region('Call'), 'Talking');
});

await step('F4 ends a conversation only when pressed twice', async () => {
  await page.keyboard.press('F4');
  await page.waitForTimeout(1300);
  await says(region('Call'), 'Talking');
  await page.keyboard.press('F4');
  await page.keyboard.press('F4');
  await says(region('Call'), 'Wrap-up');
  await look('09-wrap-up');
  await button('Available').click();
  await says(region('Call'), 'The next call');
});

await step('without auto-answer it rings until F2; F4 rejects', async () => {
  await field('Auto-answer').uncheck();
  outside.call({ caller: '+380501112233', known: false });
  await button('Answer').waitFor();
  await says(region('Call'), 'Ringing');
  await look('10-ringing');
  await page.keyboard.press('F4');
  await gone(button('Answer'));
  await button('Discard').click();
  await gone(field('Pickup'));
  outside.call({ caller: '+380501112233', known: false });
  await button('Answer').waitFor();
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press('F2');
  await says(region('Call'), 'Talking');
  outside.gone({});
  await says(region('Call'), 'Wrap-up');
  await field('Auto-answer').check();
});

await step('a card that is not acknowledged stays, says so and is sent again under the same key', async () => {
  const card = Object.keys(outside.world().cards)[0];
  outside.deaf({ on: true });
  await field('Pickup').fill('Sahaidachnoho 5');
  await button('Save order').click();
  await says(region('Order'), 'Saving');
  await says(region('Order'), 'Not saved, retrying');
  assert.equal(await field('Pickup').inputValue(), 'Sahaidachnoho 5');
  await look('11-retrying');
  outside.deaf({ on: false });
  await gone(field('Pickup'));
  assert.ok(submits(card).length >= 2);
  assert.ok(submits(card).every((one) => one.key === card));
});

await step('dialling: carrier tones in words, then talking; a refused number is told', async () => {
  await button('Available').click();
  await field('Number to call').fill('000');
  await button('Call').click();
  await says(region('Call'), 'may not be called');
  await field('Number to call').fill('+38 067 765-43-21');
  await page.keyboard.press('Enter');
  await says(region('Call'), 'Dialling');
  await says(region('Call'), '+380677654321');
  outside.tone({ kind: 'ringback' });
  await says(region('Call'), 'Carrier: ringing');
  await look('12-dialling');
  outside.tone({ kind: 'busy' });
  await says(region('Call'), 'Carrier: busy');
  await look('13-carrier-busy');
  outside.busy();
  await says(region('Call'), 'Available');
  await says(region('Call'), 'Carrier: busy');
  await field('Number to call').fill('+380677654321');
  await page.keyboard.press('Enter');
  await says(region('Call'), 'Dialling');
  outside.picked();
  await says(region('Call'), 'Talking');
  await button('Hang up').click();
  await says(region('Call'), 'Wrap-up');
  await button('Pause').click();
  await says(region('Call'), 'Paused');
  await button('Lunch').click();
  await look('14-paused');
  await button('Available').click();
});

await step('a draft outlives a reload, and the shift goes on by itself', async () => {
  outside.call({});
  await says(region('Call'), 'Talking');
  await field('Pickup').fill('Volodymyrska 40');
  await page.reload();
  await region('Order').waitFor();
  assert.equal(await field('Pickup').inputValue(), 'Volodymyrska 40');
  await says(light('Phone'), 'ok');
  outside.gone({});
  await says(region('Call'), 'Wrap-up');
  await page.keyboard.press('Control+Enter');
  await gone(field('Pickup'));
});

await step('sound goes both ways, and not out while muted', async () => {
  await button('Available').click();
  const offer = await page.evaluate(async () => {
    const context = new AudioContext();
    const tone = context.createOscillator();
    tone.frequency.value = 700;
    const out = context.createMediaStreamDestination();
    tone.connect(out);
    tone.start();
    const far = new RTCPeerConnection();
    far.addTrack(out.stream.getTracks()[0], out.stream);
    far.ontrack = ({ track }) => {
      const stream = new MediaStream([track]);
      window.farEar = Object.assign(new Audio(), { srcObject: stream, muted: true });
      window.farMeter = context.createAnalyser();
      context.createMediaStreamSource(stream).connect(window.farMeter);
    };
    await far.setLocalDescription();
    await new Promise((done) => { far.onicegatheringstatechange = () => far.iceGatheringState === 'complete' && done(); });
    window.loudest = async (meter, ms) => {
      const frame = new Float32Array(2048);
      let most = 0;
      for (const until = Date.now() + ms; Date.now() < until; await new Promise((next) => setTimeout(next, 40))) {
        meter.getFloatTimeDomainData(frame);
        most = Math.max(most, Math.sqrt(frame.reduce((sum, x) => sum + x * x, 0) / frame.length));
      }
      return most;
    };
    Object.assign(window, { far, farContext: context });
    return far.localDescription.sdp;
  });
  const { call } = outside.call({ offer });
  await says(region('Call'), 'Talking');
  await page.evaluate((sdp) => window.far.setRemoteDescription({ type: 'answer', sdp }), outside.answer({ call }));
  await page.waitForFunction(() => window.far.connectionState === 'connected');
  const peak = await page.evaluate(async () => {
    const meter = window.farContext.createAnalyser();
    window.farContext.createMediaStreamSource(document.getElementById('voice').srcObject).connect(meter);
    const spectrum = new Float32Array(meter.frequencyBinCount);
    await new Promise((next) => setTimeout(next, 700));
    meter.getFloatFrequencyData(spectrum);
    return (spectrum.indexOf(Math.max(...spectrum)) * window.farContext.sampleRate) / meter.fftSize;
  });
  assert.ok(Math.abs(peak - 700) < 40, `the desk hears ${peak} Hz`);
  const ear = () => page.evaluate(() => window.loudest(window.farMeter, 1500));
  assert.ok((await ear()) > 0.01, 'the far end hears nothing');
  await page.keyboard.press('F8');
  await page.waitForTimeout(300);
  assert.ok((await ear()) < 0.001, 'the far end hears a muted desk');
  await page.keyboard.press('F8');
  assert.ok((await ear()) > 0.01, 'the far end hears nothing after the mute');
  await says(light('Sound'), 'ok');
  outside.gone({});
  await says(region('Call'), 'Wrap-up');
  await page.waitForFunction(() => document.getElementById('voice').srcObject === null);
  await button('Discard').click();
  await gone(field('Pickup'));
});

await step('a silent feed is shown with its age and mended', async () => {
  outside.mute({ on: true });
  await light('Data').filter({ hasText: /silent|lost/ }).waitFor({ timeout: 12_000 });
  await shot('15-stale');
  outside.mute({ on: false });
  await light('Data').filter({ hasText: 'ok' }).waitFor({ timeout: 20_000 });
});

await step('a second tab is told so and can take over', async () => {
  const first = page;
  watch(await context.newPage());
  await page.goto(root);
  await page.getByText('already open').waitFor();
  await look('16-second-tab');
  await button('Use this one').click();
  await button('Start shift').or(region('Call')).first().waitFor();
  await first.getByText('already open').waitFor();
  await first.close();
});

await step('dark, the keys, Russian and Ukrainian', async () => {
  if (await button('Start shift').isVisible()) await button('Start shift').click();
  await region('Call').waitFor();
  if (await button('Available').isVisible()) await button('Available').click();
  outside.call({});
  await says(region('Call'), 'Talking');
  await button('Light or dark').click();
  await look('17-dark');
  await page.evaluate(() => document.activeElement?.blur());
  await page.keyboard.press('Shift+Slash');
  await page.getByRole('dialog').waitFor();
  await look('18-keys');
  await page.keyboard.press('Escape');
  await page.setViewportSize({ width: 683, height: 768 });
  await look('18b-zoomed', true);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'scrolls sideways at 200 %');
  await page.setViewportSize({ width: 1366, height: 768 });
  await page.getByLabel('Language').selectOption('ru');
  await page.getByRole('button', { name: 'Сохранить заказ' }).waitFor();
  await look('19-russian');
  await page.getByLabel('Язык').selectOption('uk');
  await page.getByRole('button', { name: 'Зберегти замовлення' }).waitFor();
  await page.getByRole('button', { name: 'Світла чи темна' }).click();
  await look('20-ukrainian');
  await page.getByLabel('Мова').selectOption('en');
});

await step('the wallboard, calm and alarmed, on a desk and on a television', async () => {
  await page.goto(`${root}/board`);
  await says(page.getByRole('status'), 'All is well');
  await look('21-board-calm');
  outside.crowd();
  await says(page.getByRole('status'), 'gsm-2');
  await look('22-board-busy');
  await page.setViewportSize({ width: 1920, height: 1080 });
  await look('23-board-tv');
  await page.emulateMedia({ colorScheme: 'dark' });
  await look('24-board-dark');
});

await context.close();

await step('a blocked microphone is explained, and nobody is made ready', async () => {
  context = await launch(ARGS.filter((one) => !one.includes('fake-ui')).concat('--deny-permission-prompts'));
  watch(context.pages()[0] ?? (await context.newPage()));
  await page.goto(root);
  await field('User').fill('olena');
  await field('Password').fill('olena');
  await page.keyboard.press('Enter');
  await button('Start shift').waitFor();
  const before = outside.asked().filter((one) => one.path === '/me/state').length;
  await page.keyboard.press('Enter');
  await page.getByText('The microphone is blocked').waitFor();
  await look('25-denied');
  assert.equal(outside.asked().filter((one) => one.path === '/me/state').length, before);
});

await step('a supervisor comes to the wallboard', async () => {
  await context.clearCookies();
  await page.goto(root);
  await field('User').fill('boss');
  await field('Password').fill('boss');
  await page.keyboard.press('Enter');
  await page.waitForURL(`${root}/board`);
  await page.getByRole('region', { name: 'Queues' }).waitFor();
});

await context.close();
await server.stop();
console.log(failures ? `${failures} failed` : `all passed; screenshots in ${SHOTS}`);
process.exit(failures ? 1 : 0);
