const root = document.body.dataset.root, box = document.querySelector('#q'), list = document.querySelector('#hits');
function find(text) {
  const words = text.toLowerCase().match(/[\p{L}\d_]{2,}/gu) || [], out = [];
  if (words.length) for (const e of window.INDEX || []) {
    const t = e.t.toLowerCase(), h = e.h.toLowerCase(); let score = 0;
    for (const w of words) { const s = 8*t.includes(w) + 5*h.includes(w) + (' ' + e.w).includes(' ' + w); if (!s) { score = -1; break; } score += s; }
    if (score > 0) out.push([score, e]);
  }
  return out.sort((a, b) => b[0] - a[0]).slice(0, 20).map(x => x[1]);
}
function show() {
  list.replaceChildren(...find(box.value).map(e => { const a = document.createElement('a'); a.href = root + e.u; a.textContent = e.t === e.h ? e.t : e.t + ' › ' + e.h; return a; }));
}
box.oninput = show;
document.onkeydown = e => { if (e.key === '/' && document.activeElement !== box) { e.preventDefault(); box.focus(); } };
document.querySelector('#dark').onclick = () => { const d = document.documentElement, to = getComputedStyle(d).getPropertyValue('--dark').trim() === '1' ? 'light' : 'dark';
  d.dataset.theme = to; try { localStorage.theme = to; } catch {} };
