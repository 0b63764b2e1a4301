/**
 * Probabilities corrected for how many questions were asked at once: calling everything up to q a finding makes at most
 * a share of q of all findings wrong. Benjamini and Hochberg 1995, step-up.
 */
export function benjaminiHochberg(probabilities: readonly number[]): number[] {
  const order = probabilities.map((p, index) => ({ p, index })).sort((a, b) => b.p - a.p);
  const adjusted = new Array<number>(probabilities.length).fill(1);
  let least = 1;
  order.forEach(({ p, index }, place) => {
    least = Math.min(least, (p * order.length) / (order.length - place));
    adjusted[index] = least;
  });
  return adjusted;
}
