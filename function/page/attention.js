// Where the model looked as it said a word: a grid of weights, rows from the top.

const VEIL = 0.7; // how dark it is where nobody looked
const SIDE = 320; // pixels across

/** Draws a veil on a canvas that lies over the photo, and is of its shape: clear where the largest weight is. */
export function attention(canvas, photo, weights) {
  const grid = new OffscreenCanvas(weights[0].length, weights.length);
  const pixels = new ImageData(grid.width, grid.height);
  const most = Math.max(...weights.flat());
  weights.flat().forEach((weight, cell) => {
    pixels.data[4 * cell + 3] = 255 * VEIL * (1 - weight / most); // black, of this opacity
  });
  grid.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = SIDE;
  canvas.height = Math.round((SIDE * photo.naturalHeight) / photo.naturalWidth);
  const drawn = canvas.getContext("2d");
  drawn.imageSmoothingQuality = "high";
  drawn.drawImage(grid, 0, 0, canvas.width, canvas.height);
}

/** The same in words: where the middle of the weights lies. */
export function place(weights) {
  const middle = (rows) => {
    const sums = rows.map((row) => row.reduce((sum, weight) => sum + weight, 0));
    const all = sums.reduce((sum, each) => sum + each, 0);
    return sums.reduce((sum, each, at) => sum + each * (at + 0.5), 0) / all / sums.length;
  };
  const columns = weights[0].map((_, at) => weights.map((row) => row[at]));
  const name = (at, [low, high]) => (at < 0.4 ? low : at > 0.6 ? high : "");
  const found = [name(middle(weights), ["upper", "lower"]), name(middle(columns), ["left", "right"])];
  return found.filter(Boolean).join(" ") + (found[1] ? "" : found[0] ? " part" : "middle");
}
