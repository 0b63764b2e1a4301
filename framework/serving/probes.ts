import type { Clock } from "../clock.ts";
import type { Logger } from "../logging.ts";
import type { NodeResponse } from "./node-http.ts";
import { sendJson } from "./refusal.ts";

/** How long readiness may take to be determined before it counts as missing. */
const checkTimeoutMs = 5_000;

/** How often readiness is looked at without being asked. */
const checkIntervalMs = 5_000;

export interface ReadinessOptions {
  /** Rejects, with a message for people, while the server cannot do its work. */
  readonly check: (() => Promise<void>) | undefined;
  /** Called with every change. */
  readonly onChange: (ready: boolean) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Whether a server can do its work. */
export interface Readiness {
  /** Looks now. Those who ask at the same time share one look. */
  look(): Promise<{ ready: boolean; message: string }>;
  /** Says once and for all that the server is not ready, and why. */
  stop(message: string): void;
}

/** Follows a readiness check: when asked, and every few seconds. */
export function createReadiness({ check, onChange, clock, logger }: ReadinessOptions): Readiness {
  let pending: Promise<{ ready: boolean; message: string }> | undefined;
  let known: boolean | undefined;
  let stopped: string | undefined;
  let cancel = () => {};

  async function lookOnce() {
    let message = "ready";
    let ready = true;
    try {
      await withTimeout(check?.() ?? Promise.resolve(), clock);
    } catch (error) {
      ready = false;
      message = error instanceof Error ? error.message : String(error);
    }
    pending = undefined;
    if (stopped !== undefined) {
      return { ready: false, message: stopped };
    }
    if (ready !== known) {
      if (known !== undefined || !ready) {
        logger[ready ? "info" : "warn"]({ readiness: message }, ready ? "ready again" : "not ready");
      }
      known = ready;
      onChange(ready);
    }
    if (check !== undefined) {
      cancel();
      cancel = clock.after(checkIntervalMs, look);
    }
    return { ready, message };
  }

  function look() {
    if (stopped !== undefined) {
      return Promise.resolve({ ready: false, message: stopped });
    }
    pending ??= lookOnce();
    return pending;
  }

  return {
    look,
    stop(message) {
      stopped = message;
      cancel();
    },
  };
}

/** Answers a request to a path of its own, whatever the method. */
export type Probe = (response: NodeResponse) => void | Promise<void>;

/**
 * `/healthz` says that the process lives, and looks at nothing else. `/readyz` says whether it can do its work.
 */
export function createProbes(
  readiness: Readiness,
  about: { readonly name: string; readonly version: string },
): ReadonlyMap<string, Probe> {
  return new Map<string, Probe>([
    ["/healthz", (response) => sendJson(response, { status: "alive", ...about })],
    [
      "/readyz",
      async (response) => {
        const { ready, message } = await readiness.look();
        response.statusCode = ready ? 200 : 503;
        sendJson(response, {
          status: ready ? "ready" : "not ready",
          ...(ready ? {} : { message }),
          ...about,
        });
      },
    ],
  ]);
}

function withTimeout(promise: Promise<void>, clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(checkTimeoutMs, () =>
      reject(new Error(`readiness was not determined within ${checkTimeoutMs} ms`)),
    );
    promise.then(resolve, reject).finally(cancel);
  });
}
