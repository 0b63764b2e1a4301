const SQRT_PI = Math.sqrt(Math.PI);
/** Where the series gives way to the continued fraction; both are exact to about 14 digits there. */
const SERIES_BELOW = 2.5;

/** The probability that a standard normal value is above `z`. */
export function normalAbove(z: number): number {
  return z >= 0 ? complementaryError(z / Math.SQRT2) / 2 : 1 - normalAbove(-z);
}

/** erfc for x >= 0. Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.6 and 7.1.14. */
function complementaryError(x: number): number {
  return x < SERIES_BELOW ? 1 - errorSeries(x) : errorFraction(x);
}

function errorSeries(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; term > sum * 1e-17; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / SQRT_PI) * Math.exp(-x * x) * sum;
}

function errorFraction(x: number): number {
  let fraction = x;
  for (let n = 60; n >= 1; n--) {
    fraction = x + n / 2 / fraction;
  }
  return Math.exp(-x * x) / SQRT_PI / fraction;
}
