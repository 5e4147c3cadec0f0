// Where panels lie: pictures as large as the room allows, in their rows; charts below or beside them, thumbnails above or left, whatever shows more.
const LEFT = 52, BELOW = 34, ABOVE = 19, GAP = 8, FRAME = 3;   // room for axes, titles and borders, CSS pixels
const left = p => p.axes.length ? LEFT : 0, below = p => p.axes.length ? BELOW : 0;
const across = (p, k) => (p.grow ? k : 1)*p.width + left(p) + GAP, above = row => row.some(p => p.title !== '') ? ABOVE : 0;
const tall = (row, k) => above(row) + GAP + most(row.map(p => (p.grow ? k : 1)*p.height + below(p)));   // with its titles
const sum = xs => xs.reduce((a, b) => a + b, 0), most = xs => Math.max(0, ...xs);
const wide = (row, k) => sum(row.map(p => across(p, k))), high = (rows, k) => sum(rows.map(row => tall(row, k)));
const charted = row => row.some(p => p.axes.length && !pictured(p)), grows = row => row.some(p => p.grow), pictured = p => p.grow && p.picture;

function chunks(row, n) {   // a row in n lines
  const size = Math.ceil(row.length/n);
  return Array.from({length: Math.ceil(row.length/size)}, (_, i) => row.slice(i*size, (i+1)*size));
}
function folded(row, W) {   // a row of charts in as many lines as leave each at least half of its width
  const lines = [[]], tight = row => sum(row.map(p => across(p, p.grow ? .5 : 1)));
  for (const p of row) { if (lines.at(-1).length && tight([...lines.at(-1), p]) > W) lines.push([]); lines.at(-1).push(p); }
  return lines;
}
function largest(rows, W, H) {   // the greatest scale at which rows fit
  let lo = .1, hi = 12;
  for (let i = 0; i < 30; i++) { const k = (lo + hi)/2; if (high(rows, k) <= H && rows.every(row => wide(row, k) <= W)) lo = k; else hi = k; }
  return lo;
}
function lay(at, rows, k, y, x0 = 0) {   // rows at a scale, from y on -> where they end
  for (const row of rows) {
    let x = x0;
    for (const p of row) { at[p.name] = {x, y, w: (p.grow ? k : 1)*p.width, h: (p.grow ? k : 1)*p.height, title: above(row)}; x += across(p, k); }
    y += tall(row, k);
  }
  return y;
}
function stretch(at, rows, x0, y0, W, H) {   // rows with charts fill a rectangle
  const whole = row => row.every(pictured) ? Math.min(.55*H, above(row) + GAP + (W - GAP*row.length)/sum(row.map(p => p.width/p.height))) : 0;
  const need = rows.map(row => whole(row) || tall(row, 1)), those = test => sum(need.filter((_, i) => test(rows[i])));
  const fixed = those(row => !grows(row)), pictures = those(whole), free = H - fixed, ample = sum(need) <= H;   // pictures that fill the width need no more
  const more = ample ? (free - pictures)/(sum(need) - fixed - pictures) : free/(sum(need) - fixed);
  let y = y0;
  rows.forEach((row, i) => {
    const room = (!grows(row) || ample && whole(row) ? 1 : more)*need[i], h = p => p.grow ? Math.max(40, room - above(row) - GAP - below(p)) : p.height;
    const ratio = p => p.width/p.height*h(p), pictures = row.filter(pictured), others = row.filter(p => !pictured(p));
    const space = W - sum(row.map(p => left(p) + GAP)), kept = sum(others.map(p => p.grow ? 60 : p.width));
    const fit = Math.min(1, (space - kept)/sum(pictures.map(ratio)));   // pictures keep their shape, charts share what they leave
    const shares = sum(others.map(p => p.grow ? p.width : 0)), free = space - fit*sum(pictures.map(ratio)) - sum(others.map(p => p.grow ? 0 : p.width));
    let x = x0;
    for (const p of row) {
      at[p.name] = {x, y, title: above(row), ...pictured(p) ? {w: fit*ratio(p), h: fit*h(p)} : {w: p.grow ? p.width*free/shares : p.width, h: h(p)}};
      x += at[p.name].w + left(p) + GAP;
    }
    y += room;
  });
}
function stacked(charts, W, aside) {   // rows of charts as a column; scales stand beside the pictures, or below all
  const all = charts.flat(), fixed = all.filter(p => !p.grow), own = all.filter(p => p.grow && !pictured(p)).map(p => [p]);
  const pictures = charts.map(row => row.filter(pictured)).filter(row => row.length);
  if (aside && pictures.length) return [[...pictures[0], ...fixed], ...pictures.slice(1), ...own];
  return [...pictures, ...own, ...folded(fixed, W)].filter(row => row.length);
}
function shelf(at, rows, H) {   // thumbnails in columns -> how much room they take
  const all = rows.flat(), n = Math.max(1, Math.floor(H/most(rows.map(row => tall(row, 1)))));
  all.forEach((p, i) => { at[p.name] = {x: across(p, 1)*Math.floor(i/n), y: tall([p], 1)*(i%n), w: p.width, h: p.height, title: above([p])}; });
  return all.length ? most(all.map(p => across(p, 1)))*Math.ceil(all.length/n) : 0;
}
function attempt(rows, all, H, {n, beside, part, upright, aside}) {   // pictures in n lines, part of the room for charts -> places, worth
  const thin = rows.filter(row => !charted(row) && !grows(row)), at = {}, x0 = upright ? shelf(at, thin, H) : 0, W = all - x0;
  const charts = rows.filter(charted).flatMap(row => folded(row, W)), body = rows.filter(row => !charted(row) && grows(row)).flatMap(row => chunks(row, n));
  const least = most(charts.flat().map(p => across(p, p.grow ? .2 : 1))), room = !charts.length ? 0 : beside ? Math.max(part*W, least) : part*H;
  const y0 = upright ? 0 : lay(at, thin, 1, 0), k = largest(body, beside ? W - room : W, H - y0 - (beside ? 0 : room));
  const y1 = body.length ? lay(at, body, k, y0, x0) : y0, right = beside ? most(body.map(row => wide(row, k))) : 0, y = beside ? y0 : y1;
  if (charts.length) stretch(at, beside ? stacked(charts, W - right, aside) : charts, x0 + right, y, W - right, H - y);
  const area = (rows, most) => sum(rows.flat().filter(p => p.grow).map(p => Math.min(at[p.name].w*at[p.name].h, most*p.width*p.height)));
  const cramped = charts.flat().some(p => p.grow && Math.min(at[p.name].w, at[p.name].h) < 80);   // what cannot be read
  return {at, worth: (area(body, 1e9) + .6*area(charts, 4))*(cramped ? .1 : 1)};
}
const PARTS = [.15, .2, .25, .3, .35, .4, .45, .5, .55, .6], EITHER = [false, true];
function* ways(rows) {   // how rows can be laid out
  const growing = rows.filter(row => !charted(row) && grows(row)).length, both = growing && rows.some(charted);
  for (const n of growing === 1 ? [1, 2, 3] : [1]) for (const beside of both ? EITHER : [false]) for (const aside of beside ? EITHER : [false])
    for (const upright of EITHER) for (const part of both ? PARTS : [1]) yield {n, beside, part, upright, aside};
}
const known = new Map();   // what was asked -> places
const better = (a, b) => b.worth > a.worth ? b : a;
const best = (rows, W, H) => [...ways(rows)].map(way => attempt(rows, W, H, way)).reduce(better);
function split(rows, right, W, H, share) {   // rows in a share of the width, others in the rest: the product of what they show counts
  const a = best(rows, share*W, H), b = best(right, (1 - share)*W, H);
  for (const box of Object.values(b.at)) box.x += share*W;
  return {at: {...a.at, ...b.at}, worth: a.worth*b.worth};
}
function arrange(rows, W, H) {   // {panel: x, y, w, h, title: room above it}
  const key = JSON.stringify([W, H, rows.map(row => row.map(p => [p.name, p.width, p.height, p.title === '', p.axes.length, !!p.picture, p.grow, p.beside]))]);
  if (known.has(key)) return {...known.get(key)};
  const right = rows.filter(row => row.some(p => p.beside)), rest = rows.filter(row => !right.includes(row));
  const shares = Array.from({length: 14}, (_, i) => .2 + .04*i);
  const {at} = right.length && rest.length ? shares.map(s => split(rest, right, W, H, s)).reduce(better) : best(rows, W, H);
  for (const b of Object.values(at)) for (const k in b) b[k] = Math.round(b[k]);
  if (known.size > 50) known.clear();
  known.set(key, at);
  return {...at};
}
