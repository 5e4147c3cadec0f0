// Draws rows of panels (see panels.py) on canvases, and tells the kernel what the reader does.

// Colours: the picture with its layers, by the rule of draw.heat. Floats must begin at a multiple of four bytes.
const floats = b => new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));
const bytes = b => new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
const unit = (v, l) => { const t = (v - l.vmin)/(l.vmax - l.vmin); return t > 0 ? Math.min(t, 1) : 0; };

function glow(l, W, H, o, pictures, tables) {   // one layer over the pixels o
  const {w, h, numbers} = l.values, own = l.colours, colours = bytes(own ? pictures[own].data : tables[l.cmap]);
  const t = Float64Array.from(numbers, v => unit(v, l)), alpha = t.map(t => l.opacity*Math.min(2*t, 1));
  const from = t.map((t, k) => 3*(own ? k : Math.min(255, Math.floor(256*t))));
  const across = Int32Array.from({length: W}, (_, x) => Math.floor((x+.5)*w/W));
  for (let y = 0, i = 0; y < H; y++) for (let x = 0, row = Math.floor((y+.5)*h/H)*w; x < W; x++, i += 4) {
    const k = row + across[x], a = alpha[k], c = from[k];
    if (a) for (let b = 0; b < 3; b++) o[i+b] = Math.floor((1-a)*o[i+b] + a*colours[c+b] + .5);
  }
}
function blend(p, pictures, tables) {   // a panel's picture with its layers
  const {w: W, h: H, data} = pictures[p.picture], base = bytes(data), out = new ImageData(W, H), o = out.data;
  for (let i = 0, k = 0; i < o.length; o[i++] = 255) for (let b = 0; b < 3; b++) o[i++] = base[k++];
  for (const l of p.layers) if (l.opacity) glow(l, W, H, o, pictures, tables);
  return out;
}

// Marks: bars, lines, and dots with a dark halo, so that they are seen on any picture.
function line(g, x, y) {   // NaN interrupts it
  let move = true;
  g.beginPath();
  for (let i = 0; i < x.length; i++) {
    const gap = isNaN(x[i] + y[i]);
    if (!gap) g[move ? 'moveTo' : 'lineTo'](x[i], y[i]);
    move = gap;
  }
  g.stroke();
}
function dot(g, kind, a, b, r) {
  g.beginPath();
  if (kind === 'x') { g.moveTo(a-r, b-r); g.lineTo(a+r, b+r); g.moveTo(a-r, b+r); g.lineTo(a+r, b-r); }
  else if (kind === '+') { g.moveTo(a-r, b); g.lineTo(a+r, b); g.moveTo(a, b-r); g.lineTo(a, b+r); }
  else g.arc(a, b, r, 0, 7);
}

function mark(g, m, px, py) {
  const x = m.x.numbers.map(px), y = m.y.numbers.map(py), foot = py(0);
  g.save(); g.strokeStyle = g.fillStyle = m.colour; g.globalAlpha = m.alpha; g.lineWidth = m.size;
  if (m.kind === 'bars') y.forEach((top, i) => g.fillRect(x[i], top, x[i+1] - x[i], foot - top));
  else if (m.kind === '-') line(g, x, y);
  else if (m.kind === '--') { g.setLineDash([4, 3]); line(g, x, y); }
  else for (let i = 0; i < x.length; i++) {
    dot(g, m.kind, x[i], y[i], m.size);
    if (m.size > 2) { g.strokeStyle = '#0006'; g.lineWidth = m.kind === 'o' ? 2 : 3.4; g.stroke(); }
    g.strokeStyle = m.colour; g.lineWidth = 1.6; m.kind === 'o' ? g.fill() : g.stroke();
  }
  g.restore();
}

// Axes and legend, in the ink of the page's theme.
function axes(g, p, {px, py, left, ink}) {
  const [xlabel, ylabel, xt, yt] = p.axes, {width: W, height: H} = p;
  g.strokeStyle = g.fillStyle = ink; g.font = '10px sans-serif'; g.lineWidth = .6;
  const text = (t, x, y, across, down) => { g.textAlign = across; g.textBaseline = down; g.fillText(t, x, y); };
  g.strokeRect(left, 0, W, H);
  for (const [v, t] of xt) { g.fillRect(px(v), H, .8, 3); text(t, px(v), H + 5, px(v) > left + W - 9 ? 'right' : 'center', 'top'); }
  for (const [v, t] of yt) { g.fillRect(left - 3, py(v), 3, .8); text(t, left - 5, py(v), 'right', py(v) < 6 ? 'top' : 'middle'); }
  text(xlabel, left + W/2, H + 19, 'center', 'top');
  g.save(); g.translate(7, H/2); g.rotate(-Math.PI/2); text(ylabel, 0, 0, 'center', 'middle'); g.restore();
}
function legend(g, p, {left, ink}) {
  g.font = '10px sans-serif'; g.textAlign = 'right'; g.textBaseline = 'top';
  p.marks.filter(m => m.label).forEach((m, i) => {
    g.fillStyle = m.colour; g.fillRect(left + p.width - 12, 4 + 13*i, 9, 9);
    g.fillStyle = ink; g.fillText(m.label, left + p.width - 16, 4 + 13*i);
  });
}

// A panel on its canvas; the node remembers how to go from coordinates to pixels and back.
const LEFT = 52, BELOW = 34;   // room for axes, as in panels.py
function paint(node, p, ink, pictures, tables) {
  const [left, below] = p.axes.length ? [LEFT, BELOW] : [0, 0], [W, H] = [p.width, p.height], dpr = window.devicePixelRatio || 1;
  const px = x => left + (x - p.x[0])/(p.x[1] - p.x[0])*W, py = y => H - (y - p.y[0])/(p.y[1] - p.y[0])*H;
  const c = node.canvas, g = c.getContext('2d');
  Object.assign(node, {p, px, py, left, ink, dpr});
  Object.assign(c, {width: (W + left)*dpr, height: (H + below)*dpr});
  Object.assign(c.style, {width: W + left + 'px', height: H + below + 'px'});
  g.scale(dpr, dpr); g.imageSmoothingEnabled = false;
  g.save(); g.beginPath(); g.rect(left, 0, W, H); g.clip();
  if (p.picture) {
    const im = node.pixels = blend(p, pictures, tables), small = new OffscreenCanvas(im.width, im.height);
    small.getContext('2d').putImageData(im, 0, 0); g.drawImage(small, left, 0, W, H);
  }
  for (const m of p.marks) mark(g, m, px, py);
  g.restore();
  if (p.axes.length) axes(g, p, node);
  legend(g, p, node);
  node.caption.textContent = p.title; node.classList.toggle('sshpe-chosen', p.chosen);
}
function place(node, e) {   // coordinates under the mouse, or null
  const {p, left} = node, b = node.canvas.getBoundingClientRect();
  const u = (e.clientX - b.left - left)/p.width, v = (e.clientY - b.top)/p.height;
  return u < 0 || u > 1 || v < 0 || v > 1 ? null : [p.x[0] + u*(p.x[1] - p.x[0]), p.y[1] + v*(p.y[0] - p.y[1])];
}

// One position for all panels of a frame, and a line that says x, y and the value of every layer there.
function read(nodes, frame, [x, y]) {   // values of all layers of a frame at a point
  const out = {};
  for (const {p} of nodes) if (p.frame === frame) for (const l of p.layers) {
    const {w, h, numbers} = l.values, u = (x - p.x[0])/(p.x[1] - p.x[0]), v = (y - p.y[1])/(p.y[0] - p.y[1]);
    const i = Math.min(w - 1, Math.floor(u*w)), j = Math.min(h - 1, Math.floor(v*h));
    if (!(l.name in out)) out[l.name] = numbers[j*w + i];
  }
  return out;
}
function point(root, nodes, node, xy) {   // show the cross in all panels of the frame, and say what lies there
  root.cursor = xy && [node, xy];
  for (const n of nodes) {
    const on = xy && n.p.picture && (n === node || (n.p.frame && n.p.frame === node.p.frame));
    n.cross.style.display = on ? '' : 'none';
    if (on) n.cross.style.transform = `translate(${n.px(xy[0])}px, ${n.py(xy[1])}px)`;
  }
  if (!xy) { root.readout.textContent = 'point at a picture to read it'; delete root.dataset.readout; return; }
  const [x, y] = xy, values = node.p.frame ? read(nodes, node.p.frame, xy) : {};
  const say = (k, v) => `${k} ${v.toFixed(Math.abs(v) < 100 ? 2 : 0)}`;
  root.dataset.readout = JSON.stringify({panel: node.p.name, x, y, values});
  root.readout.textContent = [say('x', x), say('y', y), ...Object.entries(values).map(kv => say(...kv))].join('   ');
}

// Clicks and drawn rectangles go to the kernel as events.
const sorted = (a, b) => a < b ? [a, b] : [b, a];
function listen(model, root, nodes, node) {
  let from = null;   // where the pointer went down
  const c = node.canvas, far = e => Math.hypot(e.clientX - from.e.clientX, e.clientY - from.e.clientY);
  const box = e => {
    const [a, b] = from.xy, [c, d] = place(node, e) || from.xy, [x0, x1] = sorted(a, c), [y0, y1] = sorted(b, d);
    return [x0, y0, x1, y1];
  };
  c.onpointerdown = e => {
    const xy = place(node, e);
    if (xy) { from = {e, xy}; c.setPointerCapture(e.pointerId); root.focus({preventScroll: true}); }
  };
  c.onpointermove = e => {
    point(root, [...nodes.values()], node, place(node, e));
    if (!from || !node.p.brush) return;
    const [x0, y0, x1, y1] = box(e), [l, r] = sorted(node.px(x0), node.px(x1)), [t, d] = sorted(node.py(y0), node.py(y1));
    Object.assign(node.box.style, {display: 'block', left: l + 'px', top: t + 'px', width: r - l + 'px', height: d - t + 'px'});
  };
  c.onpointerleave = () => point(root, [...nodes.values()], node, null);
  c.onpointerup = e => {
    if (!from) return;
    if (node.p.brush && far(e) > 4) model.send({event: 'brush', panel: node.p.name, box: box(e)});
    else if (node.p.pick || node.p.brush) model.send({event: 'pick', panel: node.p.name, xy: from.xy});
    from = null; node.box.style.display = 'none';
  };
}

// Panels keep their places while what they show changes.
function add(to, tag, cls = '', text = '') {   // a new element at the end of another
  const e = Object.assign(document.createElement(tag), {className: cls, textContent: text});
  to.append(e);
  return e;
}
function open(v) {   // every map's bytes as numbers
  if (Array.isArray(v)) v.forEach(open);
  else if (v && v.data && v.data.byteLength !== undefined) v.numbers = v.numbers || floats(v.data);
  else if (v && typeof v === 'object') Object.values(v).forEach(open);
  return v;
}
function make(model, root, nodes, name) {
  const node = document.createElement('figure');
  node.className = 'sshpe-panel'; node.dataset.panel = name; node.caption = add(node, 'figcaption', 'sshpe-title');
  const stage = add(node, 'div', 'sshpe-stage');
  node.canvas = add(stage, 'canvas'); node.cross = add(stage, 'div', 'sshpe-cross'); node.box = add(stage, 'div', 'sshpe-box');
  node.cross.style.display = 'none'; listen(model, root, nodes, node); nodes.set(name, node);
  return node;
}

function same(a, b) {   // plain values, or maps with their numbers
  if (a === b || !a || !b || typeof a !== 'object') return a === b;
  if (a.numbers) return a.w === b.w && a.numbers.length === b.numbers.length && a.numbers.every((v, i) => Object.is(v, b.numbers[i]));
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every(k => same(a[k], b[k]));
}
function show(model, root, nodes) {
  const start = performance.now(), rows = open(model.get('rows')), all = rows.flat(), names = new Set(all.map(p => p.name));
  for (const k of [...nodes.keys()]) if (!names.has(k)) nodes.delete(k);
  const node = p => nodes.get(p.name) || make(model, root, nodes, p.name), ink = getComputedStyle(root).color;
  const shape = JSON.stringify(rows.map(row => row.map(p => p.name)));
  if (shape !== root.shape) { root.stage.replaceChildren(); for (const row of rows) add(root.stage, 'div', 'sshpe-row').append(...row.map(node)); }
  root.shape = shape;
  const stale = (n, p) => n.ink !== ink || n.dpr !== (window.devicePixelRatio || 1) || !same(n.p, p);
  for (const p of all) if (stale(node(p), p)) paint(node(p), p, ink, model.get('pictures'), model.get('tables'));
  if (root.cursor && names.has(root.cursor[0].p.name)) point(root, [...nodes.values()], ...root.cursor);
  root.dataset.version = +(root.dataset.version || 0) + 1; root.dataset.ms = (performance.now() - start).toFixed(1);
}

function say(model, root) {
  const figures = model.get('figures'), {text, share} = model.get('status'), busy = share !== null && share !== undefined;
  root.figures.replaceChildren();
  for (const [name, , words] of figures) add(root.figures, 'span', '', words).dataset.figure = name;
  root.dataset.figures = JSON.stringify(Object.fromEntries(figures.map(([name, value]) => [name, value])));
  root.dataset.busy = busy ? share : ''; root.status.textContent = text || '';
  root.progress.style.display = busy ? '' : 'none'; root.progress.value = share || 0;
  root.code.textContent = model.get('code');
}
const KEYS = {n: 'next', p: 'previous', ArrowRight: 'next', ArrowLeft: 'previous'};
function press(model, root, e) {   // n and p anywhere in the explorer, arrows on the pictures
  const typing = e.target.closest('input, textarea, select, [contenteditable], .noUi-handle'), letter = e.key.length === 1;
  if (!KEYS[e.key] || typing || e.ctrlKey || e.metaKey || e.altKey || !(letter || root.contains(e.target))) return;
  e.preventDefault(); e.stopPropagation(); model.send({event: KEYS[e.key]});
}
async function copy(root, button) {
  try { await navigator.clipboard.writeText(root.code.textContent); button.textContent = 'copied'; }
  catch { getSelection().selectAllChildren(root.code); }   // where the browser forbids it: selected, ready to copy
}

function render({model, el}) {
  const root = add(el, 'div', 'sshpe-panels'), nodes = new Map(), said = ['figures', 'status', 'code'];
  root.tabIndex = 0; root.dataset.lmSuppressShortcuts = 'true';
  root.figures = add(root, 'div', 'sshpe-figures'); root.stage = add(root, 'div');
  root.readout = add(root, 'div', 'sshpe-readout');
  const foot = add(root, 'div', 'sshpe-foot'), more = add(root, 'details', 'sshpe-code');
  root.progress = add(foot, 'progress', 'sshpe-progress'); root.status = add(foot, 'span', 'sshpe-status');
  add(more, 'summary', '', 'as code');
  const button = add(more, 'button', 'sshpe-copy', 'copy'); root.code = add(more, 'code');
  button.onclick = () => copy(root, button);
  const draw = () => show(model, root, nodes), tell = () => say(model, root), theme = new MutationObserver(draw);
  const begin = () => {   // colours are known once the page holds the element
    if (!el.isConnected) return requestAnimationFrame(begin);
    (root.closest('.sshpe-explorer') || root).addEventListener('keydown', e => press(model, root, e));
    theme.observe(document.body, {attributes: true, attributeFilter: ['data-jp-theme-light']});
    model.on('change:rows', draw); draw();
  };
  for (const k of said) model.on('change:' + k, tell);
  point(root, [], null, null); tell(); begin();
  return () => { theme.disconnect(); model.off('change:rows', draw); for (const k of said) model.off('change:' + k, tell); };
}
export default {render};
