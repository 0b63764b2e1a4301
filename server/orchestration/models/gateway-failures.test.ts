import { Code } from "@connectrpc/connect";
import { DomainError, type DomainErrorInit } from "@toolplane/framework";
import { describe, expect, test } from "vitest";
import { createFakeClock } from "../../../framework/test-support/fake-clock.ts";
import { MAX_ANSWER_BYTES } from "./exchange.ts";
import type { Turn } from "./model.ts";
import { MAX_WAITING } from "./slots.ts";
import { type Behaviour, type FailureCause, refuses, says, sends } from "./test-support/model-servers.ts";
import { API_KEY, openGateway, PROTOCOLS } from "./test-support/open-gateway.ts";

async function failureOf(turn: Promise<Turn>): Promise<DomainErrorInit> {
  const error = await turn.then(
    () => expect.unreachable("the model has answered"),
    (reason: unknown) => reason,
  );
  expect.assert(error instanceof DomainError, String(error));
  return error.init;
}

const REFUSALS: readonly (readonly [FailureCause, Code, string])[] = [
  ["overloaded", Code.Unavailable, "MODEL_OVERLOADED"],
  ["broken", Code.Unavailable, "MODEL_FAILED"],
  ["rate-limited", Code.ResourceExhausted, "MODEL_RATE_LIMITED"],
  ["too-long", Code.InvalidArgument, "CONTEXT_TOO_LONG"],
  ["invalid", Code.InvalidArgument, "MODEL_REFUSED_REQUEST"],
  ["unauthenticated", Code.Unauthenticated, "MODEL_KEY_REFUSED"],
  ["forbidden", Code.PermissionDenied, "MODEL_FORBIDDEN"],
  ["no-model", Code.NotFound, "MODEL_NOT_FOUND"],
  ["no-credit", Code.FailedPrecondition, "MODEL_CREDIT_USED_UP"],
];

describe.each(PROTOCOLS)("over the %s protocol", (protocol) => {
  test.each(REFUSALS)(
    "a provider that refuses (%s) is told by code and reason",
    async (cause, code, reason) => {
      const { turn } = await openGateway(protocol, () => refuses(cause, { message: "in its own words" }));

      const failure = await failureOf(turn());

      // Where a protocol has no kind for it, only the words tell.
      const byWordsOnly = protocol === "anthropic" && (cause === "too-long" || cause === "no-credit");
      expect(failure).toMatchObject(
        byWordsOnly ? { code: Code.InvalidArgument } : { code, reason, metadata: { provider: "test" } },
      );
      expect(failure.message).toContain("in its own words");
    },
  );

  test.each(REFUSALS)("the words of the real services are known: %s", async (cause, code, reason) => {
    const { turn } = await openGateway(protocol, () => refuses(cause));

    expect(await failureOf(turn())).toMatchObject({ code, reason });
  });

  test.each(
    REFUSALS.filter(([cause]) => cause === "overloaded" || cause === "rate-limited" || cause === "too-long"),
  )("a provider that fails in the middle of its answer (%s) is told alike", async (cause, code) => {
    const { turn, deltas } = await openGateway(protocol, () => says("It is", { failure: cause }));

    expect(await failureOf(turn())).toMatchObject({ code });
    expect(deltas.map(({ text }) => text).join("")).toBe("It is");
  });

  test("a provider that fails at the very beginning of its answer is told alike", async () => {
    const { turn } = await openGateway(protocol, () => says("", { failure: "rate-limited" }));

    expect(await failureOf(turn())).toMatchObject({
      code: Code.ResourceExhausted,
      reason: "MODEL_RATE_LIMITED",
    });
  });

  test("how long a provider asks to wait is told", async () => {
    const { turn } = await openGateway(protocol, ({ number }) =>
      refuses("rate-limited", { headers: number === 1 ? { "retry-after": "7" } : {} }),
    );

    expect(await failureOf(turn())).toMatchObject({ retryAfterMs: 7_000 });
    expect(await failureOf(turn())).not.toHaveProperty("retryAfterMs");
  });

  test.each([1, 40, 150, 300, 450])("an answer that is cut after %i bytes is none", async (cutAfterBytes) => {
    const { turn } = await openGateway(protocol, () =>
      says("It is cold in Oslo.", {
        cutAfterBytes,
        calls: [{ name: "weather", arguments: { city: "Oslo" } }],
      }),
    );

    expect(await failureOf(turn())).toMatchObject({ code: Code.Unavailable, reason: "MODEL_ANSWER_CUT" });
  });

  test.each([
    ["text", says("It is", { unfinished: true })],
    ["calls", says("", { unfinished: true, calls: [{ name: "weather", arguments: {} }] })],
    ["nothing", says("", { unfinished: true })],
    ["no event at all", sends("")],
    ["lines that are no events", sends("hello\nworld\n\n")],
  ])("an answer that ends in good order but says not why is none: %s", async (_, behaviour) => {
    const { turn } = await openGateway(protocol, () => behaviour);

    expect(await failureOf(turn())).toMatchObject({ code: Code.Unavailable, reason: "MODEL_ANSWER_CUT" });
  });

  test.each<[string, Behaviour]>([
    ["broken JSON", sends("data: {not json}\n\n")],
    ["JSON of another kind", sends('data: {"type":"tide","hello":1}\n\n')],
    ["a list", sends("data: [1,2,3]\n\n")],
    ["a page", sends("<html>Welcome</html>", "text/html")],
    ["plain JSON", sends('{"hello":1}', "application/json")],
  ])("an answer that is not as the protocol has it is none: %s", async (_, behaviour) => {
    const { turn } = await openGateway(protocol, () => behaviour);

    expect(await failureOf(turn())).toMatchObject({
      code: Code.Unavailable,
      reason: "MODEL_ANSWER_INVALID",
    });
  });

  test("a refusal that looks like an answer is one all the same", async () => {
    const { turn } = await openGateway(protocol, () =>
      sends('{"error":{"message":"the cluster sleeps"}}', "application/json"),
    );

    const { code, message } = await failureOf(turn());

    expect(code).toBe(Code.Unavailable);
    expect(message).toContain("the cluster sleeps");
  });

  test.each([
    [502, "<html>Bad gateway</html>", "text/html", Code.Unavailable],
    [500, "", "text/plain", Code.Unavailable],
    [400, "no such thing", "text/plain; charset=utf-8", Code.InvalidArgument],
    [400, '{"error":"no such thing"}', "application/json", Code.InvalidArgument],
    [422, '{"detail":"no such thing"}', "application/json", Code.InvalidArgument],
    [413, "", "text/plain", Code.InvalidArgument],
    [307, "", "text/plain", Code.FailedPrecondition],
  ])("status %i with the body %j is understood", async (status, body, contentType, code) => {
    const { turn } = await openGateway(protocol, () => ({ kind: "raw", status, body, contentType }));

    const failure = await failureOf(turn());

    expect(failure.code).toBe(code);
    expect(failure.message.includes("no such thing")).toBe(body.includes("no such thing"));
  });

  test("a provider that breaks the connection, and one that is gone, can be asked again later", async () => {
    const { turn, server } = await openGateway(protocol, ({ number }) =>
      number === 1 ? { kind: "reset" } : says("Here I am."),
    );

    expect(await failureOf(turn())).toMatchObject({ code: Code.Unavailable, reason: "MODEL_UNREACHABLE" });
    expect((await turn()).text).toBe("Here I am.");
    await server.close();
    expect(await failureOf(turn())).toMatchObject({ code: Code.Unavailable, reason: "MODEL_UNREACHABLE" });
  });

  test.each([false, true])(
    "a provider that falls silent is left (after it has begun: %s)",
    async (started) => {
      const clock = createFakeClock();
      const { turn, server } = await openGateway(protocol, () => ({ kind: "silence", started }), {
        clock,
        provider: "silence_timeout: 30s",
      });

      const failure = failureOf(turn());
      await expect.poll(() => server.requests.length).toBe(1);
      const left = server.requests[0]?.left;
      // Whatever has come starts the time anew, and when that arrives is not known here.
      await expect
        .poll(() => {
          clock.advance(10_000);
          return left?.aborted;
        })
        .toBe(true);

      expect(await failure).toMatchObject({ code: Code.Unavailable, reason: "MODEL_SILENT" });
      expect((await failure).message).toContain("30 s");
      expect(clock.pending).toBe(0);
    },
  );

  test("a provider that keeps on writing is not silent, however long it takes", async () => {
    const clock = createFakeClock();
    let next = Promise.withResolvers<void>();
    async function* slowly() {
      for (let count = 0; count < 5; count++) {
        yield `${count} `;
        await next.promise;
        next = Promise.withResolvers();
      }
    }
    const { turn, deltas } = await openGateway(protocol, () => says(slowly()), {
      clock,
      provider: "silence_timeout: 30s",
    });

    const asked = turn();
    for (let count = 1; count <= 5; count++) {
      await expect.poll(() => deltas.length).toBe(count);
      clock.advance(29_000);
      next.resolve();
    }

    expect((await asked).text.trim()).toBe("0 1 2 3 4");
    expect(clock.pending).toBe(0);
  });

  test("an endless answer is broken off", async () => {
    let sent = 0;
    async function* endlessly() {
      const line = `: ${"x".repeat(1024 * 1024)}\n`;
      for (; sent < 2 * MAX_ANSWER_BYTES; sent += line.length) {
        yield line;
      }
    }
    const { turn } = await openGateway(protocol, () => sends(endlessly()));

    expect(await failureOf(turn())).toMatchObject({
      code: Code.Unavailable,
      reason: "MODEL_ANSWER_TOO_LARGE",
    });
    expect(sent).toBeLessThan(2 * MAX_ANSWER_BYTES);
  });

  test("a refusal's words are told without control characters and not beyond a thousand of them", async () => {
    const { turn } = await openGateway(protocol, () =>
      refuses("invalid", { message: `bad\u0007\nrequest ${"x".repeat(200_000)}` }),
    );

    const { message } = await failureOf(turn());

    expect(message).toContain("bad request xxx");
    expect(message.length).toBeLessThan(1_200);
  });

  test("no key is ever in a message or in the log", async () => {
    const { turn, log } = await openGateway(protocol, ({ number }) => {
      const message = `Incorrect API key provided: ${API_KEY}. Or was it sk-proj-************wxyz?`;
      return number === 1
        ? refuses("unauthenticated", { message })
        : sends(JSON.stringify({ error: { message } }), "application/json");
    });

    const failures = [await failureOf(turn()), await failureOf(turn())];

    for (const { message } of failures) {
      expect(message).toContain("Incorrect API key provided: [key]. Or was it [key]?");
    }
    expect(log).toHaveLength(2);
    expect(JSON.stringify([failures, log])).not.toContain(API_KEY);
  });

  test("a provider that wants no key gets none", async () => {
    const { turn, server } = await openGateway(protocol, () => says("Yes."), { wantsKey: false });

    await turn();

    expect(server.requests[0]?.headers).not.toHaveProperty("authorization");
    expect(server.requests[0]?.headers).not.toHaveProperty("x-api-key");
  });

  test("a key is read anew for each request", async () => {
    const { turn, env } = await openGateway(protocol, () => says("Yes."));

    env["TEST_KEY"] = "sk-old-0123456789";
    expect(await failureOf(turn())).toMatchObject({ code: Code.Unauthenticated });
    env["TEST_KEY"] = API_KEY;
    expect((await turn()).text).toBe("Yes.");
  });

  test.each([undefined, "", "  ", "two words", "zwölf"])(
    "without a usable key nothing is sent: %j",
    async (key) => {
      const { turn, env, server } = await openGateway(protocol, () => says("Yes."));

      env["TEST_KEY"] = key;
      const failure = await failureOf(turn());

      expect(failure).toMatchObject({ code: Code.FailedPrecondition, reason: "MODEL_KEY_MISSING" });
      expect(failure.message).toContain("environment variable TEST_KEY");
      expect(server.requests).toEqual([]);
    },
  );

  test("a call that is left is left at once, and so is the provider", async () => {
    const { turn, server } = await openGateway(protocol, () => ({ kind: "silence", started: true }));
    const controller = new AbortController();
    const reason = new Error("nobody waits any more");

    const asked = turn({}, controller.signal);
    await expect.poll(() => server.requests.length).toBe(1);
    controller.abort(reason);

    await expect(asked).rejects.toBe(reason);
    await expect.poll(() => server.requests[0]?.left.aborted).toBe(true);
  });

  test("a call that is left before it begins is never sent", async () => {
    const { turn, server } = await openGateway(protocol, () => says("Yes."));
    const reason = new Error("nobody waits any more");

    await expect(turn({}, AbortSignal.abort(reason))).rejects.toBe(reason);
    expect(server.requests).toEqual([]);
  });

  test("no more requests run at once than allowed; those that wait can be left", async () => {
    const gate = Promise.withResolvers<void>();
    let running = 0;
    let most = 0;
    const { turn, server } = await openGateway(
      protocol,
      async () => {
        most = Math.max(most, ++running);
        await gate.promise;
        running--;
        return says("Yes.");
      },
      { provider: "max_concurrency: 3" },
    );
    const controller = new AbortController();

    const asked = Array.from({ length: 10 }, () => turn());
    const leaver = turn({}, controller.signal);
    await expect.poll(() => server.requests.length).toBe(3);
    controller.abort(new Error("nobody waits any more"));
    await expect(leaver).rejects.toThrow("nobody waits any more");
    gate.resolve();

    expect((await Promise.all(asked)).map(({ text }) => text)).toEqual(Array(10).fill("Yes."));
    expect(most).toBe(3);
    expect(server.requests).toHaveLength(10);
  });

  test("what does not even find room to wait is refused", async () => {
    const { turn, gateway } = await openGateway(protocol, () => ({ kind: "silence", started: false }), {
      provider: "max_concurrency: 1",
    });

    const waiting = Array.from({ length: MAX_WAITING + 1 }, () => turn().catch((error: unknown) => error));
    // The first one has to leave the queue before all of them fit into it.
    await expect.poll(async () => (await failureOf(turn())).reason).toBe("MODEL_QUEUE_FULL");
    await gateway.close();

    const ends = await Promise.all(waiting);
    expect(ends.every((end) => end instanceof DomainError)).toBe(true);
  });

  test("closing ends what runs and takes no more", async () => {
    const { turn, gateway, server } = await openGateway(protocol, () => ({ kind: "silence", started: true }));

    const running = failureOf(turn());
    await expect.poll(() => server.requests.length).toBe(1);
    await gateway.close();

    expect(await running).toMatchObject({ code: Code.Unavailable, reason: "SHUTTING_DOWN" });
    expect(await failureOf(turn())).toMatchObject({ code: Code.Unavailable, reason: "SHUTTING_DOWN" });
  });

  test("a listener that fails ends the turn with its own error", async () => {
    async function* unending() {
      yield "Yes.";
      await new Promise(() => {});
    }
    const { gateway, model, server } = await openGateway(protocol, () => says(unending()));

    const asked = gateway.turn(
      { model, system: "", messages: [{ role: "user", content: "?" }], tools: [], maxOutputTokens: 10 },
      {
        signal: new AbortController().signal,
        onDelta: () => {
          throw new Error("the log is full");
        },
      },
    );

    await expect(asked).rejects.toThrow("the log is full");
    await expect.poll(() => server.requests[0]?.left.aborted).toBe(true);
  });
});
