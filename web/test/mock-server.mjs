/**
 * A stand-in for Tandem, enough to open every page: the API, the event feed and a trace of SIP over
 * WebSocket (REGISTER, OPTIONS, and INVITE with an offer that no media ever follows).
 * `npm run mock [port]`; the log-ins are olena/olena (operator) and boss/boss (supervisor). What happens
 * in the world outside is told by `POST /mock/<what>`: see `outside` below.
 */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';

const DIST = fileURLToPath(new URL('../dist', import.meta.url));
const CSP = "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob:";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const USERS = { olena: 'operator', boss: 'supervisor' };
const PING_MS = 2000;

const ago = (ms) => new Date(Date.now() - ms).toISOString();
const operator = (name, state = 'offline', more = {}) => ({
  name, state, reason: null, since: ago(0), queues: ['orders', 'airport'], skills: [], call: null,
  phone: state === 'offline' ? 'none' : 'registered', microphone: 'ok', calls_today: 0, talk_ms_today: 0, auto_answer: true, ...more,
});
const queue = (name, more = {}) => ({
  name, waiting: 0, longest_wait_ms: 0, callers: [], operators: { available: 0 },
  today: { offered: 0, answered: 0, abandoned: 0, short_abandoned: 0, service_level: null, asa_ms: null, aht_ms: null }, ...more,
});

export function start(port = 0) {
  const sessions = new Map();
  const feeds = new Set();
  const phones = new Map();
  const history = [];
  const world = {
    calls: {}, cards: {}, customers: {},
    operators: { olena: operator('olena') },
    queues: { orders: queue('orders'), airport: queue('airport') },
    trunks: { 'gsm-1': { name: 'gsm-1', kind: 'gateway', state: 'up', registered_from: '127.0.0.1:5062', channels: 8, busy: 0, last_error: null, asr: 0.93, false_answers: 0 } },
  };
  const asked = [];
  const answers = {};
  let seq = 0;
  let mute = false;
  let deaf = false;

  function emit(type, body) {
    const message = { seq: ++seq, at: ago(0), type, ...body };
    history.push(message);
    if (!mute) for (const { socket } of feeds) socket.send(JSON.stringify(message));
  }
  const tellCall = (type, call) => emit(type, { call: call.id, object: { ...call } });
  const tellOperator = (name, change) => {
    Object.assign(world.operators[name], { since: ago(0) }, change);
    emit('operator.state', { operator: { ...world.operators[name] } });
  };
  const snapshot = (user) => ({
    me: world.operators[user] ?? null,
    calls: Object.values(world.calls), cards: Object.values(world.cards).map((card) => ({ ...card, customer: world.customers[card.id] })),
    operators: Object.values(world.operators), queues: Object.values(world.queues), trunks: Object.values(world.trunks),
    node: { name: 'tandem-1', role: 'single', epoch: 1, protected: false, version: '0.1.0' },
  });

  // ── SIP ────────────────────────────────────────────────────────────────────────────────────────
  const parse = (text) => {
    const [head, body = ''] = text.split('\r\n\r\n');
    const [first, ...lines] = head.split('\r\n');
    const headers = {};
    for (const line of lines) {
      const at = line.indexOf(':');
      const name = line.slice(0, at).toLowerCase();
      headers[name] = headers[name] ? `${headers[name]}, ${line.slice(at + 1).trim()}` : line.slice(at + 1).trim();
    }
    return { first, headers, body };
  };
  const reply = (socket, request, status, extra = []) => {
    const { headers } = request;
    const to = /tag=/.test(headers.to) ? headers.to : `${headers.to};tag=m${randomUUID().slice(0, 8)}`;
    socket.send([`SIP/2.0 ${status}`, `Via: ${headers.via}`, `From: ${headers.from}`, `To: ${to}`, `Call-ID: ${headers['call-id']}`, `CSeq: ${headers.cseq}`, ...extra, 'Content-Length: 0', '', ''].join('\r\n'));
  };
  const request = (dialog, method, extra = [], body = '') => {
    dialog.cseq += method === 'ACK' || method === 'CANCEL' ? 0 : 1;
    const branch = method === 'CANCEL' ? dialog.branch : `z9hG4bK${randomUUID().slice(0, 12)}`;
    if (method === 'INVITE') dialog.branch = branch;
    dialog.phone.socket.send([
      `${method} ${dialog.phone.contact} SIP/2.0`, `Via: SIP/2.0/WS mock.invalid;branch=${branch}`, 'Max-Forwards: 70',
      `From: <sip:${dialog.from}@tandem.local>;tag=${dialog.tag}`, `To: <${dialog.phone.aor}>${dialog.toTag ? `;tag=${dialog.toTag}` : ''}`,
      `Call-ID: ${dialog.id}`, `CSeq: ${dialog.cseq} ${method}`, 'Contact: <sip:tandem@mock.invalid;transport=ws>',
      ...extra, `Content-Length: ${Buffer.byteLength(body)}`, '', body,
    ].join('\r\n'));
  };
  const OFFER = ['v=0', 'o=- 1 1 IN IP4 127.0.0.1', 's=-', 't=0 0', 'a=ice-lite', 'a=group:BUNDLE 0', 'm=audio 9 UDP/TLS/RTP/SAVPF 8 126', 'c=IN IP4 127.0.0.1',
    'a=mid:0', 'a=rtcp-mux', 'a=sendrecv', 'a=ice-ufrag:mock', 'a=ice-pwd:mockmockmockmockmockmock', 'a=setup:actpass',
    `a=fingerprint:sha-256 ${Array(32).fill('AB').join(':')}`, 'a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host', 'a=rtpmap:8 PCMA/8000', 'a=rtpmap:126 telephone-event/8000', ''].join('\r\n');
  function invite(user, call, from, auto, offer = OFFER) {
    const phone = phones.get(user);
    if (!phone) return;
    const dialog = { phone, from, id: randomUUID(), tag: randomUUID().slice(0, 8), toTag: '', cseq: 1, call: call.id, user };
    phone.dialogs.set(dialog.id, dialog);
    request(dialog, 'INVITE', [
      ...(auto ? ['Call-Info: <sip:tandem.local>;answer-after=0'] : []), `X-Tandem-Call: ${call.id}`, `X-Tandem-Queue: ${call.queue ?? ''}`, 'Content-Type: application/sdp',
    ], offer);
  }
  function heard(socket, user, text) {
    const message = parse(text);
    const phone = phones.get(user.name);
    if (message.first.startsWith('SIP/2.0')) {
      const dialog = phone?.dialogs.get(message.headers['call-id']);
      const status = Number(message.first.split(' ')[1]);
      if (!dialog || !/INVITE$/.test(message.headers.cseq) || status < 200) return;
      dialog.toTag = /tag=([^;,\s]+)/.exec(message.headers.to)?.[1] ?? '';
      request(dialog, 'ACK');
      if (status === 200) { answers[dialog.call] = message.body; answered(dialog); }
      else { phone.dialogs.delete(dialog.id); end(dialog.call, 'no_answer'); }
      return;
    }
    const [method] = message.first.split(' ');
    if (method === 'REGISTER') {
      user.name = /sip:([^@]+)@/.exec(message.headers.to)?.[1];
      const contact = /<([^>]+)>/.exec(message.headers.contact)?.[1];
      const gone = /expires:?=?\s*0/i.test(`${message.headers.contact} expires=${message.headers.expires ?? ''}`);
      if (gone) phones.delete(user.name);
      else phones.set(user.name, { socket, contact, aor: `sip:${user.name}@tandem.local`, dialogs: phones.get(user.name)?.dialogs ?? new Map() });
      reply(socket, message, '200 OK', gone ? [] : [`Contact: ${message.headers.contact};expires=120`, 'Expires: 120']);
      if (world.operators[user.name]) Object.assign(world.operators[user.name], { phone: gone ? 'none' : 'registered' });
    } else if (method === 'BYE') {
      reply(socket, message, '200 OK');
      const dialog = phone?.dialogs.get(message.headers['call-id']);
      phone?.dialogs.delete(message.headers['call-id']);
      if (dialog) end(dialog.call, 'answered');
    } else if (method !== 'ACK') reply(socket, message, '200 OK');
  }

  // ── calls ──────────────────────────────────────────────────────────────────────────────────────
  function answered(dialog) {
    const call = world.calls[dialog.call];
    if (!call || call.direction === 'out') return;
    Object.assign(call, { state: 'talking', answered_at: ago(0) });
    tellCall('call.answered', call);
    tellOperator(dialog.user, { state: 'talking' });
  }
  function end(id, result, cause = { q850: 16, sip: 0, words: '' }) {
    const call = world.calls[id];
    if (!call) return;
    delete world.calls[id];
    for (const phone of phones.values()) for (const dialog of phone.dialogs.values()) {
      if (dialog.call !== id) continue;
      phone.dialogs.delete(dialog.id);
      request(dialog, dialog.toTag ? 'BYE' : 'CANCEL');
    }
    Object.assign(call, { state: 'ended', ended_at: ago(0), result, cause });
    tellCall('call.ended', call);
    if (call.operator) tellOperator(call.operator, { state: call.answered_at ? 'wrap_up' : 'available', call: null });
  }
  const newCall = (more) => {
    const call = { id: randomUUID(), direction: 'in', state: 'arrived', caller: null, called: null, line: null, trunk: 'gsm-1', queue: null, operator: null,
      arrived_at: ago(0), answered_at: null, ended_at: null, wait_ms: 0, talk_ms: 0, result: null, cause: null, tone: null, card: null, legs: [], ...more };
    world.calls[call.id] = call;
    tellCall('call.arrived', call);
    return call;
  };
  const outside = {
    /** Somebody calls the order line; the operator is assigned. */
    call({ caller = '+380671234567', user = 'olena', known = true, offer }) {
      const call = newCall({ caller, called: '+380441234567', line: '+380441234567' });
      const card = { id: randomUUID(), call: call.id, caller, operator: user, state: 'draft', fields: {}, order: null, created_at: ago(0) };
      world.cards[card.id] = card;
      if (known) {
        world.customers[card.id] = { name: 'Iryna Kovalenko', blocked: false, orders: [
          { id: 'o3', at: ago(86_400_000 * 2), pickup: 'Khreshchatyk 22', destination: 'Boryspil Airport, terminal D', state: 'done' },
          { id: 'o2', at: ago(86_400_000 * 6), pickup: 'Lva Tolstoho 9', destination: 'Khreshchatyk 22', state: 'done' },
          { id: 'o1', at: ago(86_400_000 * 31), pickup: 'Peremohy Ave 67', destination: 'Railway station', state: 'cancelled' },
        ] };
      }
      Object.assign(call, { state: 'ringing', queue: 'orders', operator: user, card: card.id });
      tellCall('call.assigned', call);
      tellOperator(user, { state: 'ringing', call: call.id });
      emit('card.opened', { card: { ...card }, customer: world.customers[card.id] });
      invite(user, call, caller, world.operators[user].auto_answer, offer);
      return { call: call.id, card: card.id };
    },
    /** The caller hangs up. */
    gone: ({ call }) => end(call ?? Object.keys(world.calls)[0], 'answered'),
    tone({ kind }) {
      const call = Object.values(world.calls)[0];
      Object.assign(call, { tone: kind });
      emit('tone', { call: call.id, kind });
    },
    /** The number that was dialled answers. */
    picked() {
      const call = Object.values(world.calls)[0];
      Object.assign(call, { state: 'talking', answered_at: ago(0), tone: null });
      tellCall('call.answered', call);
      tellOperator(call.operator, { state: 'talking' });
    },
    busy: () => end(Object.keys(world.calls)[0], 'busy', { q850: 17, sip: 486, words: 'busy' }),
    /** No submit is answered any more, until told otherwise. */
    deaf: ({ on }) => void (deaf = on),
    /** The feed falls silent. */
    mute: ({ on }) => void (mute = on),
    accept({ card }) { emit('card.accepted', { card: { ...world.cards[card], state: 'accepted' } }); delete world.cards[card]; },
    asked: () => asked,
    /** The desk's answer to an INVITE, once it has come. */
    answer: ({ call }) => answers[call] ?? null,
    world: () => world,
    calm() { world.trunks['gsm-1'].state = 'up'; },
    /** A busy floor for the wallboard. */
    crowd() {
      const people = [['ivan', 'talking', 95_000], ['marta', 'talking', 310_000], ['petro', 'available', 12_000], ['sofia', 'wrap_up', 8_000], ['taras', 'paused', 26 * 60_000, { reason: 'lunch' }],
        ['yulia', 'ringing', 4_000], ['andriy', 'available', 61_000], ['daryna', 'talking', 22_000], ['maksym', 'available', 130_000, { phone: 'lost' }], ['nadia', 'offline', 3_600_000], ['oksana', 'wrap_up', 150_000], ['roman', 'talking', 41_000]];
      for (const [name, state, ms, more] of people) world.operators[name] = operator(name, state, { since: ago(ms), calls_today: 7 + name.length, ...more });
      for (const name of ['ivan', 'marta', 'daryna', 'roman', 'yulia']) {
        const call = newCall({ caller: `+38067${String(1234567 + name.length * 7919).slice(0, 7)}`, operator: name, state: 'talking', answered_at: ago(30_000), queue: 'orders' });
        world.operators[name].call = call.id;
        emit('operator.state', { operator: { ...world.operators[name] } });
      }
      for (const one of Object.values(world.operators)) emit('operator.state', { operator: { ...one } });
      const today = { offered: 412, answered: 371, abandoned: 29, short_abandoned: 12, service_level: 0.84, asa_ms: 9200, aht_ms: 84_000 };
      const callers = [96_000, 41_000, 18_000].map((ms, n) => ({ call: `w${n}`, caller: `+3805012345${n}0`, place: n + 1, since: ago(ms), priority: 0 }));
      world.queues.orders = queue('orders', { waiting: 3, longest_wait_ms: 96_000, callers, operators: { available: 2, talking: 4 }, today });
      world.queues.airport = queue('airport', { operators: { available: 2 }, today: { ...today, offered: 96, answered: 93, abandoned: 2, service_level: 0.91 } });
      world.queues.courier = queue('courier', { operators: { available: 1 }, today: { ...today, offered: 30, answered: 30, abandoned: 0, service_level: 0.97 } });
      Object.assign(world.trunks['gsm-1'], { busy: 5 });
      world.trunks['gsm-2'] = { ...world.trunks['gsm-1'], name: 'gsm-2', state: 'down', busy: 0, last_error: '14:02 registration expired' };
      world.trunks['sip-prov'] = { ...world.trunks['gsm-1'], name: 'sip-prov', kind: 'provider', channels: 30, busy: 11 };
      for (const one of Object.values(world.queues)) emit('queue.stats', { queue: { ...one } });
      for (const one of Object.values(world.trunks)) emit(`trunk.${one.state}`, { trunk: { ...one } });
    },
  };

  // ── HTTP ───────────────────────────────────────────────────────────────────────────────────────
  const server = createServer((req, res) => {
    void handle(req, res).catch((error) => { res.statusCode = 500; res.end(String(error)); });
  });
  async function handle(req, res) {
    const path = new URL(req.url, 'http://x').pathname;
    let text = '';
    for await (const chunk of req) text += chunk;
    const body = text ? JSON.parse(text) : {};
    const json = (status, value) => { res.writeHead(status, { 'Content-Type': status < 400 ? 'application/json' : 'application/problem+json' }); res.end(value === undefined ? '' : JSON.stringify(value)); };
    if (path.startsWith('/mock/')) return json(200, outside[path.slice(6)]?.(body) ?? {});
    if (path.startsWith('/api/v1/')) return api(req, res, path.slice(7), body, json);
    const file = normalize(path === '/' || !extname(path) ? '/index.html' : path);
    try {
      const bytes = await readFile(join(DIST, file));
      res.writeHead(200, { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream', 'Content-Security-Policy': CSP, 'Permissions-Policy': 'microphone=(self)' });
      res.end(bytes);
    } catch { res.writeHead(404); res.end(); }
  }
  async function api(req, res, path, body, json) {
    const token = /tandem=(\S+?)(?:;|$)/.exec(req.headers.cookie ?? '')?.[1];
    const user = sessions.get(token);
    const session = (name) => ({ user: name, role: USERS[name], queues: ['orders', 'airport'], sip: { uri: `sip:${name}@tandem.local`, username: name, password: 'x', websocket: '/sip', expires_at: ago(-3_600_000) } });
    asked.push({ method: req.method, path, key: req.headers['idempotency-key'], body });
    if (path === '/session' && req.method === 'POST') {
      if (!USERS[body.username] || body.password !== body.username) return json(401, { title: 'Unauthorized', status: 401 });
      const fresh = randomUUID();
      sessions.set(fresh, body.username);
      res.setHeader('Set-Cookie', `tandem=${fresh}; HttpOnly; SameSite=Strict; Path=/`);
      return json(200, session(body.username));
    }
    if (!user) return json(401, { title: 'Unauthorized', status: 401 });
    if (path === '/session') {
      if (req.method === 'GET') return json(200, session(user));
      sessions.delete(token);
      return json(204);
    }
    if (path === '/me/state') {
      const me = world.operators[user];
      if (body.auto_answer !== undefined) me.auto_answer = body.auto_answer;
      tellOperator(user, body.state ? { state: body.state, reason: body.reason ?? null } : { since: me.since });
      return json(200, me);
    }
    if (path === '/calls' && req.method === 'POST') {
      if (body.to === '000') return json(403, { title: 'Forbidden', status: 403, detail: 'This number may not be called.' });
      const call = newCall({ direction: 'out', called: body.to, operator: user, state: 'ringing' });
      tellOperator(user, { state: 'talking', call: call.id });
      invite(user, call, body.to, true);
      return json(201, { id: call.id });
    }
    const [, noun, id, verb] = path.split('/');
    const call = noun === 'calls' ? world.calls[id] : null;
    if (call) {
      if (verb === 'hangup') end(id, call.answered_at ? 'answered' : 'failed');
      if (verb === 'hold') { call.state = 'held'; tellCall('call.held', call); }
      if (verb === 'resume') { call.state = 'talking'; tellCall('call.resumed', call); }
      return json(202, {});
    }
    const card = noun === 'cards' ? world.cards[id] : null;
    if (card) {
      if (req.method === 'PUT') { card.fields = body.fields; emit('card.updated', { card: { ...card } }); return json(200, card); }
      if (verb === 'discard') { delete world.cards[id]; emit('card.discarded', { card: { ...card, state: 'discarded' } }); return json(200, {}); }
      if (deaf) return undefined;
      delete world.cards[id];
      emit('card.accepted', { card: { ...card, state: 'accepted', fields: body.fields } });
      return json(200, { ...card, state: 'accepted' });
    }
    return json(404, { title: 'Not Found', status: 404 });
  }

  // ── WebSockets ─────────────────────────────────────────────────────────────────────────────────
  const events = new WebSocketServer({ noServer: true });
  const sip = new WebSocketServer({ noServer: true, handleProtocols: () => 'sip' });
  server.on('upgrade', (req, socket, head) => {
    const url = new URL(req.url, 'http://x');
    if (url.pathname === '/sip') {
      sip.handleUpgrade(req, socket, head, (ws) => {
        const user = { name: null };
        ws.on('message', (data) => { const text = data.toString(); if (text.trim()) heard(ws, user, text); });
      });
    } else if (url.pathname === '/api/v1/events') {
      const user = sessions.get(/tandem=(\S+?)(?:;|$)/.exec(req.headers.cookie ?? '')?.[1]);
      if (!user) return socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n');
      events.handleUpgrade(req, socket, head, (ws) => {
        const feed = { socket: ws };
        const after = url.searchParams.get('after');
        if (!mute) {
          if (after === null) ws.send(JSON.stringify({ type: 'reset', seq, at: ago(0), snapshot: snapshot(user) }));
          else for (const message of history.filter((one) => one.seq > Number(after))) ws.send(JSON.stringify(message));
        }
        feeds.add(feed);
        ws.on('close', () => feeds.delete(feed));
      });
    } else socket.destroy();
    return undefined;
  });
  const pinging = setInterval(() => { if (!mute) for (const { socket } of feeds) socket.send(JSON.stringify({ type: 'ping', at: ago(0) })); }, PING_MS);

  return new Promise((done) => {
    server.listen(port, '127.0.0.1', () => done({
      port: server.address().port,
      outside,
      async stop() {
        clearInterval(pinging);
        for (const one of [...events.clients, ...sip.clients]) one.terminate();
        server.closeAllConnections();
        await new Promise((closed) => server.close(closed));
      },
    }));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await start(Number(process.argv[2] ?? 8080));
  console.log(`http://127.0.0.1:${port}  (olena/olena, boss/boss)`);
}
