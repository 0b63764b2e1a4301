import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { onTestFinished } from "vitest";
import type { CallReport, Order } from "./limiting-process.ts";

/** A process that limits calls together with others. */
export interface LimitingProcess {
  /** Makes calls in the name of each key. `onProgress` hears how many were answered. */
  call(
    order: Omit<Extract<Order, { kind: "call" }>, "kind">,
    onProgress?: (answered: number) => void,
  ): Promise<CallReport>;
  store(): Promise<"up" | "lost">;
}

/** Starts a process that ends with the test. */
export async function startLimitingProcess(
  kind: "postgres" | "redis",
  url: string,
): Promise<LimitingProcess> {
  const child = fork(new URL("./limiting-process.ts", import.meta.url), [kind, url], {
    execArgv: ["--conditions=toolplane-source"],
  });
  onTestFinished(async () => {
    if (child.exitCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  });
  await once(child, "message");
  return {
    call: (order, onProgress) => tell(child, { kind: "call", ...order }, onProgress) as Promise<CallReport>,
    store: () => tell(child, { kind: "store" }) as Promise<"up" | "lost">,
  };
}

function tell(child: ChildProcess, order: Order, onProgress?: (answered: number) => void): Promise<unknown> {
  return new Promise((resolve, reject) => {
    function listen(message: { readonly report?: unknown; readonly progress?: number }) {
      if (message.progress !== undefined) {
        onProgress?.(message.progress);
      } else {
        child.off("message", listen);
        resolve(message.report);
      }
    }
    child.on("message", listen);
    child.send(order, (error) => error && reject(error));
  });
}
