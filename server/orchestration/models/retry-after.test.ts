import { expect, test } from "vitest";
import { retryAfterMs } from "./retry-after.ts";

const NOW = Date.UTC(2026, 0, 1, 12, 0, 0);

test.each([
  [{}, undefined],
  [{ "retry-after": "3" }, 3_000],
  [{ "retry-after": "0.25" }, 250],
  [{ "retry-after": "Thu, 01 Jan 2026 12:00:09 GMT" }, 9_000],
  [{ "retry-after": "Thu, 01 Jan 2026 11:00:00 GMT" }, 0],
  [{ "retry-after": "soon" }, undefined],
  [{ "retry-after": "-5" }, 0],
  [{ "retry-after": "86400" }, 3_600_000],
  [{ "retry-after-ms": "40", "retry-after": "3" }, 40],
  [
    {
      "anthropic-ratelimit-requests-remaining": "0",
      "anthropic-ratelimit-requests-reset": "2026-01-01T12:00:05Z",
      "anthropic-ratelimit-input-tokens-remaining": "0",
      "anthropic-ratelimit-input-tokens-reset": "2026-01-01T12:00:20Z",
      "anthropic-ratelimit-output-tokens-remaining": "900",
      "anthropic-ratelimit-output-tokens-reset": "2026-01-01T12:30:00Z",
    },
    20_000,
  ],
  [
    {
      "x-ratelimit-remaining-requests": "0",
      "x-ratelimit-reset-requests": "1m30.5s",
      "x-ratelimit-remaining-tokens": "12",
      "x-ratelimit-reset-tokens": "6h0m0s",
    },
    90_500,
  ],
  [{ "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms" }, 20],
  [{ "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "later" }, undefined],
])("the headers %j ask to wait %j ms", (headers, expected) => {
  expect(retryAfterMs(headers, NOW)).toBe(expected);
});
