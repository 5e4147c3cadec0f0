// Draws rows of panels (see panels.py) on canvases where places.js says, and tells the kernel what the reader does.

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
function axes(g, p, {px, py, left, ink, box: {w: W, h: H}}) {
  const [xlabel, ylabel, xt, yt] = p.axes;
  g.strokeStyle = g.fillStyle = ink; g.font = '11px sans-serif'; g.lineWidth = .6;
  const text = (t, x, y, across, down) => { g.textAlign = across; g.textBaseline = down; g.fillText(t, x, y); };
  g.strokeRect(left, 0, W, H);
  const crowded = sum(xt.map(([, t]) => g.measureText(t).width + 5)) > W;   // then every other one stands lower
  const ends = [-Infinity, -Infinity];   // of the words in each line: what would cover them is left out
  xt.forEach(([v, t], i) => {
    const half = g.measureText(t).width/2, low = crowded*(i%2), x = Math.min(px(v), left + W - half);
    g.fillRect(px(v), H, .8, 3);
    if (x - half < ends[low] + 2) return;
    ends[low] = x + half;
    text(t, x, H + 5 + low*12, 'center', 'top');
  });
  if (!crowded) text(xlabel, left + W/2, H + 19, 'center', 'top');
  g.save(); g.translate(7, H/2); g.rotate(-Math.PI/2); text(ylabel, 0, 0, 'center', 'middle'); g.restore();
}
function legend(g, p, {left, ink, box: {w: W}}) {
  g.font = '11px sans-serif'; g.textAlign = 'right'; g.textBaseline = 'top';
  p.marks.filter(m => m.label).forEach((m, i) => {
    g.fillStyle = m.colour; g.fillRect(left + W - 12, 4 + 13*i, 9, 9);
    g.fillStyle = ink; g.fillText(m.label, left + W - 16, 4 + 13*i);
  });
}

// What is seen of a picture: all of it, or the same part of each that shares a cursor.
const WHOLE = {u: 0, v: 0, k: 1};
const inside = (t, k) => Math.max(0, Math.min(1 - 1/k, t));
function closer(lens, u, v, by) {   // what lies at the share u, v of the panel stays there
  const k = Math.max(1, Math.min(16, lens.k*by)), x = lens.u + u/lens.k, y = lens.v + v/lens.k;
  return {k, u: inside(x - u/k, k), v: inside(y - v/k, k)};
}

// A panel on its canvas; the node remembers how to go from coordinates to pixels and back.
function paint(node, p, box, lens, look, pictures, tables) {
  const {w: W, h: H} = box, {ink, dpr, smooth} = look, {u, v, k} = p.picture && p.frame ? lens : WHOLE, l = left(p);
  const px = x => l + ((x - p.x[0])/(p.x[1] - p.x[0]) - u)*k*W, py = y => ((y - p.y[1])/(p.y[0] - p.y[1]) - v)*k*H;
  const c = node.canvas, g = c.getContext('2d');
  Object.assign(node, {p, px, py, left: l, box, lens: {u, v, k}, look: JSON.stringify([box, u, v, k, look]), ink});
  Object.assign(c, {width: (W + l)*dpr, height: (H + below(p))*dpr});
  Object.assign(c.style, {width: W + l + 'px', height: H + below(p) + 'px'});
  g.scale(dpr, dpr); g.imageSmoothingEnabled = smooth;
  g.save(); g.beginPath(); g.rect(l, 0, W, H); g.clip();
  if (p.picture) {
    const im = node.pixels = blend(p, pictures, tables), small = new OffscreenCanvas(im.width, im.height);
    small.getContext('2d').putImageData(im, 0, 0);
    g.drawImage(small, u*im.width, v*im.height, im.width/k, im.height/k, l, 0, W, H);
  }
  const size = Math.max(1, Math.min(2.2, Math.sqrt(W/p.width)));
  for (const m of p.marks) mark(g, m.kind === 'bars' || p.axes.length && !p.picture ? m : {...m, size: m.size*size}, px, py);
  g.restore();
  if (p.axes.length) axes(g, p, node);
  legend(g, p, node);
  c.setAttribute('aria-label', p.title || p.name);
  node.caption.textContent = node.caption.title = p.title; node.classList.toggle('sshpe-chosen', p.chosen);
}
function share(node, e) {   // of the panel's width and height, under the mouse
  const b = node.canvas.getBoundingClientRect();
  return [(e.clientX - b.left - node.left)/node.box.w, (e.clientY - b.top)/node.box.h];
}
function at(node, [a, b]) {   // coordinates at a share of the panel
  const {p, lens: {u, v, k}} = node;
  return [p.x[0] + (u + a/k)*(p.x[1] - p.x[0]), p.y[1] + (v + b/k)*(p.y[0] - p.y[1])];
}
function place(node, e) {   // coordinates under the mouse, or null
  const [a, b] = share(node, e);
  return a < 0 || a > 1 || b < 0 || b > 1 ? null : at(node, [a, b]);
}
const near = (node, e) => at(node, share(node, e).map(t => Math.max(0, Math.min(1, t))));   // the nearest ones

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
  if (!xy) { root.readout.textContent = 'point at a picture to read it; ? lists the keys'; delete root.dataset.readout; return; }
  const [x, y] = xy, values = node.p.frame ? read(nodes, node.p.frame, xy) : {};
  const say = (k, v) => `${k} ${v.toFixed(Math.abs(v) < 100 ? 2 : 0)}`;
  root.dataset.readout = JSON.stringify({panel: node.p.name, x, y, values});
  root.readout.textContent = [say('x', x), say('y', y), ...Object.entries(values).map(kv => say(...kv))].join('   ');
}

// Clicks and drawn rectangles go to the kernel; zoom, pan and enlarging stay here.
const sorted = (a, b) => a < b ? [a, b] : [b, a];
function listen(model, root, nodes, node) {
  let from = null, soon = null;   // where the pointer went down; the click that waits whether it becomes a double one
  const c = node.canvas, far = e => Math.hypot(e.clientX - from.e.clientX, e.clientY - from.e.clientY);
  const box = e => {
    const [a, b] = from.xy, [c, d] = near(node, e), [x0, x1] = sorted(a, c), [y0, y1] = sorted(b, d);
    return [x0, y0, x1, y1];
  };
  const pans = () => node.p.picture && node.p.frame && root.lens.k > 1;
  const pick = xy => model.send({event: 'pick', panel: node.p.name, xy});
  c.onpointerdown = e => {
    if (e.button) return;
    from = {e, xy: near(node, e), in: place(node, e), lens: root.lens}; c.setPointerCapture(e.pointerId); root.focus({preventScroll: true});
  };
  c.onpointermove = e => {
    root.over = node; point(root, [...nodes.values()], node, place(node, e));
    if (!from) return;
    if (pans() && !node.p.brush && far(e) > 4) {
      const {k, u, v} = from.lens, {w, h} = node.box;
      root.lens = {k, u: inside(u - (e.clientX - from.e.clientX)/w/k, k), v: inside(v - (e.clientY - from.e.clientY)/h/k, k)};
      return root.draw();
    }
    if (!node.p.brush) return;
    const [x0, y0, x1, y1] = box(e), [l, r] = sorted(node.px(x0), node.px(x1)), [t, d] = sorted(node.py(y0), node.py(y1));
    Object.assign(node.rect.style, {display: 'block', left: l + 'px', top: t + 'px', width: r - l + 'px', height: d - t + 'px'});
  };
  c.onpointerleave = () => point(root, [...nodes.values()], node, null);
  c.onpointerup = e => {
    if (!from) return;
    const moved = far(e) > 4, xy = from.in;
    if (node.p.brush && moved) model.send({event: 'brush', panel: node.p.name, box: box(e)});
    else if (!moved && xy && (node.p.pick || node.p.brush)) {
      clearTimeout(soon);
      if (node.p.picture && node.p.frame) soon = setTimeout(() => pick(xy), 220); else pick(xy);
    }
    from = null; node.rect.style.display = 'none';
  };
  c.ondblclick = () => { clearTimeout(soon); enlarge(root, node); };
  c.addEventListener('wheel', e => {   // the page scrolls until somebody has clicked into the explorer
    const awake = root.app || e.ctrlKey || root.contains(document.activeElement);
    if (!awake || !node.p.picture || !node.p.frame) return;
    e.preventDefault(); root.lens = closer(root.lens, ...share(node, e), Math.exp(-e.deltaY/400)); root.draw();
  }, {passive: false});
}
function enlarge(root, node) {   // one panel in the whole window, or all of them again
  root.big = root.big || !node || !node.p.grow ? null : node;
  if (root.big) root.dialog.showModal(); else if (root.dialog.open) root.dialog.close();
  root.draw(true);
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
  const stage = add(node, 'div', 'sshpe-canvas');
  node.canvas = add(stage, 'canvas'); node.canvas.setAttribute('role', 'img'); node.cross = add(stage, 'div', 'sshpe-cross'); node.rect = add(stage, 'div', 'sshpe-box');
  node.cross.style.display = 'none'; listen(model, root, nodes, node); nodes.set(name, node);
  return node;
}

function same(a, b) {   // plain values, or maps with their numbers
  if (a === b || !a || !b || typeof a !== 'object') return a === b;
  if (a.numbers) return a.w === b.w && a.numbers.length === b.numbers.length && a.numbers.every((v, i) => Object.is(v, b.numbers[i]));
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every(k => same(a[k], b[k]));
}
function room(root) {   // width and height for all panels, CSS pixels
  const top = root.app ? root.stage.getBoundingClientRect().top + window.scrollY - root.top() : 90, rest = root.foot.offsetHeight + 6;
  return [Math.max(240, root.clientWidth - 6), Math.max(320, window.innerHeight - top - rest)];
}
function show(model, root, nodes, anew) {   // anew: in another order or place
  const start = performance.now(), rows = open(model.get('rows')), all = rows.flat(), names = new Set(all.map(p => p.name));
  for (const k of [...nodes.keys()]) if (!names.has(k)) nodes.delete(k);
  if (root.big && !names.has(root.big.p.name)) { root.big = null; root.dialog.close(); }
  const node = p => nodes.get(p.name) || make(model, root, nodes, p.name), big = root.big && root.big.dataset.panel;
  const shape = JSON.stringify(rows.map(row => row.map(p => p.name)));
  if (shape !== root.shape || anew) { root.stage.replaceChildren(...all.map(node)); if (big) root.dialog.prepend(nodes.get(big)); }
  root.shape = shape;
  const [W, H] = room(root), places = arrange(rows, W*root.size, H*root.size);
  if (big) places[big] = arrange([[all.find(p => p.name === big)]], window.innerWidth - 24, window.innerHeight - 40)[big];
  root.stage.style.height = most(all.filter(p => p.name !== big).map(p => places[p.name].y + places[p.name].h + places[p.name].title + below(p) + 2*FRAME)) + 'px';
  const look = {ink: getComputedStyle(root).color, dpr: window.devicePixelRatio || 1, smooth: root.smooth};
  for (const p of all) {
    const n = node(p), box = places[p.name], {u, v, k} = p.picture && p.frame ? root.lens : WHOLE;
    Object.assign(n.style, {left: box.x + 'px', top: box.y + 'px'}); Object.assign(n.caption.style, {width: box.w + left(p) + 'px', display: box.title ? '' : 'none'});
    if (n.look !== JSON.stringify([box, u, v, k, look]) || !same(n.p, p)) paint(n, p, box, root.lens, look, model.get('pictures'), model.get('tables'));
  }
  if (root.cursor && names.has(root.cursor[0].p.name)) point(root, [...nodes.values()], ...root.cursor);
  root.dataset.version = +(root.dataset.version || 0) + 1; root.dataset.ms = (performance.now() - start).toFixed(1);
}

const NUMBER = /(^[-+]?\d[\d.,]*\s?(?:%|px|s\b)?|(?<=\s)[-+]?\d[\d.,]*(?:%|\s?(?:px|bit|σ))|(?<=\s)[-+]?\d[\d.,]*$)/;   // with its unit
function say(model, root) {
  const figures = model.get('figures'), {text, share} = model.get('status'), busy = share !== null && share !== undefined;
  root.figures.replaceChildren(); root.figures.classList.toggle('sshpe-many', figures.length > 6);
  for (const [name, , words, means] of figures) {   // numbers large, what they mean on hover
    const span = add(root.figures, 'span');
    Object.assign(span, {title: means || ''}); span.dataset.figure = name;
    for (const part of words.split(NUMBER)) if (part) add(span, NUMBER.test(part) ? 'b' : 'i', '', part);
  }
  root.dataset.figures = JSON.stringify(Object.fromEntries(figures.map(([name, value]) => [name, value])));
  root.dataset.busy = busy ? share : ''; root.status.textContent = text || '';
  root.progress.style.display = busy ? '' : 'none'; root.progress.value = share || 0;
  root.code.textContent = model.get('code');
}

// Keys: what the kernel does, and what happens here.
const KEYS = {n: 'next', p: 'previous', ArrowRight: 'next', ArrowLeft: 'previous', j: 'joint', J: 'joint back', '+': 'more', '=': 'more', '-': 'less',
              z: 'undo', Z: 'redo', 1: 'tag 1', 2: 'tag 2', 3: 'tag 3'};
const HERE = {f: root => enlarge(root, root.over), 0: root => { root.lens = WHOLE; root.draw(); }, s: root => { root.smooth = !root.smooth; root.draw(); },
              e: root => root.take('svg'), E: root => root.take('png'),
              '?': root => root.help.open ? root.help.close() : root.help.showModal()};
const HELP = [['n  →', 'next person'], ['p  ←', 'previous person'], ['j  J', 'next joint, previous joint'], ['+  −', 'the marked control up, down'],
              ['z  Z', 'undo, redo'], ['1  2  3', 'your mark, where there are notes'], ['f', 'enlarge the panel under the mouse, and back'], ['Esc', 'back'], ['0', 'whole pictures again'],
              ['s', 'smooth or raw pixels'], ['e  E', 'save the panel under the mouse as SVG, as PNG'], ['Ctrl+V', 'look at a copied picture'], ['?', 'this help'], ['wheel, drag', 'zoom and move all pictures together'],
              ['double-click', 'enlarge a panel'], ['click', 'choose a person, a moment, τ in a histogram']];
function press(model, root, e) {   // letters anywhere in the explorer, arrows on the pictures
  if (e.key === 'Tab') root.classList.add('sshpe-tabbed');   // from now on, show where the keys go
  const typing = e.target.closest('input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable], .noUi-handle'), letter = e.key.length === 1;
  if (!(KEYS[e.key] || HERE[e.key]) || typing || e.ctrlKey || e.metaKey || e.altKey || !(letter || root.contains(e.target))) return;
  e.preventDefault(); e.stopPropagation();
  if (HERE[e.key]) HERE[e.key](root); else model.send({event: KEYS[e.key]});
}
async function paste(model, e) {   // a copied picture is a photo of one's own
  const file = [...(e.clipboardData?.files ?? [])].find(f => f.type.startsWith('image/'));
  if (!file) return;
  e.preventDefault();
  model.send({event: 'paste', kind: file.type}, undefined, [await file.arrayBuffer()]);
}
async function copy(root, button) {
  try { await navigator.clipboard.writeText(root.code.textContent); button.textContent = 'copied'; }
  catch { getSelection().selectAllChildren(root.code); }   // where the browser forbids it: selected, ready to copy
}
async function send(model, button) {   // the address of what is shown
  history.replaceState(null, '', '#' + model.get('link'));
  try { await navigator.clipboard.writeText(location.href); button.textContent = 'copied'; }
  catch { button.textContent = 'see the address bar'; }
  setTimeout(() => { button.textContent = 'link'; }, 3000);
}
function save({file, kind}, data) {   // a file from the kernel
  const a = Object.assign(document.createElement('a'), {download: file, href: URL.createObjectURL(new Blob([data], {type: kind}))});
  a.click(); setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}

// The parts around the panels.
function tools(model, root) {
  const does = (name, title, f) => Object.assign(add(root.tools, 'button', 'sshpe-tool', name), {title, onclick: f});
  const resize = by => () => { root.size = Math.max(.5, Math.min(3, root.size*by)); root.draw(); };
  does('A−', 'smaller panels', resize(1/1.15)).dataset.tool = 'smaller'; does('A+', 'larger panels', resize(1.15)).dataset.tool = 'larger';
  does('whole', 'whole pictures again (0)', () => HERE[0](root)); does('PNG', 'save the page as a picture', () => model.send({event: 'png'}));
  does('SVG', 'save the page as vectors', () => model.send({event: 'svg'}));
  does('CSV', 'save the numbers as a table', () => model.send({event: 'csv'}));
  root.link = does('link', 'copy the address of what is shown', e => send(model, e.target)); root.link.hidden = true;
  does('?', 'keys (?)', () => HERE['?'](root));
}
function build(model, el) {
  const root = add(el, 'div', 'sshpe-panels');
  root.tabIndex = 0; root.dataset.lmSuppressShortcuts = 'true';
  Object.assign(root, {lens: WHOLE, size: 1, smooth: false, big: null, over: null, app: 'voila' in document.body.dataset});
  root.figures = add(root, 'div', 'sshpe-figures'); root.stage = add(root, 'div', 'sshpe-stage');
  root.foot = add(root, 'div', 'sshpe-foot');
  root.readout = add(root.foot, 'span', 'sshpe-readout'); root.progress = add(root.foot, 'progress', 'sshpe-progress');
  root.status = add(root.foot, 'span', 'sshpe-status'); root.more = add(root.foot, 'details', 'sshpe-code'); root.tools = add(root.foot, 'span', 'sshpe-tools'); tools(model, root);
  add(root.more, 'summary', '', 'as code');
  const button = add(root.more, 'button', 'sshpe-copy', 'copy'); root.code = add(root.more, 'code');
  button.onclick = () => copy(root, button);
  root.dialog = add(root, 'dialog', 'sshpe-big'); root.dialog.onclose = () => root.big && enlarge(root);
  root.help = add(root, 'dialog', 'sshpe-help');
  for (const [key, words] of HELP) { add(root.help, 'kbd', '', key); add(root.help, 'span', '', words); }
  root.help.onclick = () => root.help.close();
  return root;
}
function render({model, el}) {
  const root = build(model, el), nodes = new Map(), said = ['figures', 'status', 'code'];
  root.take = event => root.over && model.send({event, panel: root.over.p.name});   // the panel under the mouse, as a file
  root.draw = anew => show(model, root, nodes, anew); root.top = () => (root.closest('.sshpe-explorer') || root).getBoundingClientRect().top + window.scrollY;
  const draw = () => root.draw(), tell = () => say(model, root), theme = new MutationObserver(draw), size = new ResizeObserver(() => requestAnimationFrame(draw));
  const get = (m, buffers) => m.file && save(m, buffers[0]), key = e => press(model, root, e), pasted = e => paste(model, e);
  const follow = () => location.hash.length > 1 && model.send({event: 'link', text: location.hash.slice(1)});   // opened by an address
  const begin = () => {   // colours are known once the page holds the element
    if (!el.isConnected) return requestAnimationFrame(begin);
    const home = root.closest('.sshpe-explorer') || root;
    const page = root.app && !home.parentElement.closest('.sshpe-explorer');   // the window is this explorer's
    for (const [what, f] of [['keydown', key], ['paste', pasted]]) (page ? document : home).addEventListener(what, f);
    if (page) { root.link.hidden = false; window.addEventListener('hashchange', follow); follow(); }
    theme.observe(document.body, {attributes: true, attributeFilter: ['data-jp-theme-light']}); size.observe(root); window.addEventListener('resize', draw);
    model.on('change:rows', draw); draw();
    if (root.app) root.focus({preventScroll: true});
  };
  for (const k of said) model.on('change:' + k, tell);
  model.on('msg:custom', get); point(root, [], null, null); tell(); begin();
  return () => {
    theme.disconnect(); size.disconnect(); window.removeEventListener('resize', draw); document.removeEventListener('keydown', key); document.removeEventListener('paste', pasted);
    window.removeEventListener('hashchange', follow);
    model.off('change:rows', draw); model.off('msg:custom', get); for (const k of said) model.off('change:' + k, tell);
  };
}
export default {render};
