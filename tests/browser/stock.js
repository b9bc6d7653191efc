// The smallest telephone made of JsSIP, with session timers, codecs and ICE as JsSIP has them by default.
const seen = { ended: [], updates: [] };
let phone;
let session;
const Native = window.WebSocket;
window.WebSocket = class extends Native {
  constructor(...words) {
    super(...words);
    this.addEventListener('message', ({ data }) => {
      const text = String(data);
      if (/^SIP\/2\.0 \d+/.test(text) && /^CSeq: *\d+ +UPDATE/im.test(text)) seen.updates.push(Number(text.slice(8, 11)));
    });
  }
};
async function start() {
  const answer = await fetch('/api/v1/session');
  const { sip } = await answer.json();
  const address = `${location.origin.replace('http', 'ws')}${sip.websocket}`;
  phone = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(address)], uri: sip.uri, authorization_user: sip.username, password: sip.password,
  });
  phone.on('newRTCSession', (event) => {
    session = event.session;
    session.on('ended', ({ originator, cause }) => seen.ended.push(`${originator}: ${cause}`));
    session.on('failed', ({ originator, cause }) => seen.ended.push(`${originator}: ${cause}`));
  });
  // Resolved when it is registered.
  return new Promise((done, failed) => {
    phone.on('registered', () => done(true));
    phone.on('registrationFailed', ({ cause }) => failed(new Error(cause)));
    phone.on('disconnected', ({ code, reason }) => failed(new Error(`${code} ${reason}`)));
    phone.start();
  });
}
const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
window.stock = {
  seen,
  start,
  call: (number) => void phone.call(number, { mediaConstraints: { audio, video: false } }),
  hangUp: () => session.terminate(),
};
