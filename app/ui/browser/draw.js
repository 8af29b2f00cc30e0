// Numbers in, pixels out: fields, ranges and colours. Nothing here knows the page.

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/**
 * Raw maps, by label, in evidence per picture area, as `l2d.layers.measure_by_area` does it for figures: times the number of their cells,
 * which share the evidence. Only so do maps with more and with fewer cells compare.
 */
function measureByArea(maps) {
  const measure = (rows) => rows.map((row) => row.map((value) => value * rows.length * row.length));
  return Object.fromEntries(Object.entries(maps).map(([label, rows]) => [label, measure(rows)]));
}

/** Value of a map (rows of numbers) at (x, y), both in [0, 1] of the picture. Smooth is bilinear between the centres of the cells. */
function valueAt(map, x, y, smooth) {
  const h = map.length, w = map[0].length;
  if (!smooth) return map[clamp(Math.floor(y * h), 0, h - 1)][clamp(Math.floor(x * w), 0, w - 1)];
  const fx = clamp(x * w - 0.5, 0, w - 1), fy = clamp(y * h - 0.5, 0, h - 1);
  const x0 = Math.floor(fx), y0 = Math.floor(fy), x1 = Math.min(x0 + 1, w - 1), y1 = Math.min(y0 + 1, h - 1);
  const dx = fx - x0, dy = fy - y0;
  const top = map[y0][x0] * (1 - dx) + map[y0][x1] * dx;
  return top * (1 - dy) + (map[y1][x0] * (1 - dx) + map[y1][x1] * dx) * dy;
}

/** Sample any function of (x, y) at the centres of width x height pixels. */
function sample(width, height, read) {
  const values = new Float32Array(width * height);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) values[row * width + column] = read((column + 0.5) / width, (row + 0.5) / height);
  return { values, width, height };
}

function largest(map) {
  return map.reduce((most, row) => row.reduce((a, b) => Math.max(a, b), most), 0);
}

/** A colour map from "rrggbb" written 256 times in a row. */
function parseColours(text) {
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}

/**
 * Draw a field. `range` is the value of full colour; a signed field spreads around the middle of the colour map.
 * Where `even` is false little evidence is also little paint, so that the photograph stays visible where the network does not look.
 */
function paint(canvas, field, { range, signed, colours, even, opacity }) {
  canvas.width = field.width;
  canvas.height = field.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(field.width, field.height);
  for (let i = 0; i < field.values.length; i++) {
    const share = clamp(field.values[i] / range, signed ? -1 : 0, 1);
    const colour = 3 * Math.round(255 * (signed ? (share + 1) / 2 : share));
    image.data[4 * i] = colours[colour];
    image.data[4 * i + 1] = colours[colour + 1];
    image.data[4 * i + 2] = colours[colour + 2];
    image.data[4 * i + 3] = 255 * opacity * (even ? 1 : Math.min(1, 1.6 * Math.abs(share)));
  }
  context.putImageData(image, 0, 0);
}

/** Draw a picture below what a canvas shows, in the picture's pixels: both of them look as they did above one another. */
function layOver(canvas, picture) {
  const { naturalWidth: width, naturalHeight: height } = picture;
  const both = Object.assign(document.createElement("canvas"), { width, height }), context = both.getContext("2d");
  context.filter = getComputedStyle(picture).filter;
  context.drawImage(picture, 0, 0);
  context.filter = "none";
  context.imageSmoothingEnabled = getComputedStyle(canvas).imageRendering !== "pixelated";
  context.drawImage(canvas, 0, 0, width, height);
  Object.assign(canvas, { width, height }).getContext("2d").drawImage(both, 0, 0);
}

/** The colour map itself, from low to high. */
function paintBar(canvas, colours) {
  paint(canvas, sample(256, 1, (x) => x), { range: 1, signed: false, colours, even: true, opacity: 1 });
}

/** A value of a map as `l2d.layers.format_number` writes it in figures: two significant digits, or all those before the point. */
function formatNumber(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 99.5 ? value.toFixed(0) : size >= 0.01 ? value.toPrecision(2) : value.toExponential(0);
  return text.replaceAll("-", "−");
}
