// Runs in the page before everything else: measures the sound that a call brings, whoever made the call.
(() => {
  const PROBES = [425, 600, 700, 850, 1000];
  const connections = [];
  let ear = null;

  async function listen(stream) {
    // Chromium decodes a remote stream only for a media element.
    const sink = new Audio();
    sink.srcObject = stream;
    sink.muted = true;
    sink.play().catch(() => {});
    const context = new AudioContext({ sampleRate: 48000 });
    if (context.state !== 'running') await context.resume();
    const analyser = context.createAnalyser();
    analyser.fftSize = 16384;
    analyser.smoothingTimeConstant = 0;
    context.createMediaStreamSource(stream).connect(analyser);
    ear?.context.close();
    ear = { sink, context, analyser, frame: new Float32Array(analyser.fftSize) };
  }

  function level(frame, hz, rate) {
    const turn = 2 * Math.cos((2 * Math.PI * hz) / rate);
    let before = 0;
    let last = 0;
    for (let n = 0; n < frame.length; n += 1) {
      const window = 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / (frame.length - 1));
      [before, last] = [last, window * frame[n] + turn * last - before];
    }
    const power = before * before + last * last - turn * before * last;
    return (2 * Math.sqrt(Math.max(0, power))) / (frame.length / 2);
  }

  // The newest `samples` of 48,000 a second, 16,384 at most: few for a sound that comes and goes.
  window.tandemEar = (samples = 16384) => {
    if (!ear) return null;
    const { analyser, context } = ear;
    analyser.getFloatTimeDomainData(ear.frame);
    const frame = ear.frame.subarray(-samples);
    let energy = 0;
    for (const sample of frame) energy += sample * sample;
    const tones = {};
    for (const hz of PROBES) tones[hz] = level(frame, hz, context.sampleRate);
    return { rms: Math.sqrt(energy / frame.length), tones };
  };

  window.tandemStats = async () => {
    const found = { received: 0, lost: 0, sent: 0, connections: connections.length };
    const last = connections[connections.length - 1];
    if (!last) return found;
    for (const report of (await last.getStats()).values()) {
      if (report.type === 'inbound-rtp') { found.received += report.packetsReceived; found.lost += report.packetsLost; }
      if (report.type === 'outbound-rtp') found.sent += report.packetsSent;
    }
    return found;
  };

  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...words) {
      super(...words);
      connections.push(this);
      this.addEventListener('track', (event) => void listen(event.streams[0] ?? new MediaStream([event.track])));
    }
  };
})();
