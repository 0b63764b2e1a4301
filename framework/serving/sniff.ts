import type { Socket } from "node:net";
import type { Clock } from "../clock.ts";

/** No HTTP/1.1 method starts like the preface of HTTP/2, `PRI * HTTP/2.0`; the nearest is `PROPFIND`. */
const prefaceStart = Buffer.from("PRI");

/**
 * Tells from a connection's first bytes whether it speaks HTTP/2 with prior knowledge or HTTP/1.1. The bytes, which
 * may come one at a time, are put back; the socket is left paused.
 *
 * @param onDecision is not called for a connection that ends, or says too little within `timeoutMs`; it is closed
 */
export function sniffProtocol(
  socket: Socket,
  clock: Clock,
  timeoutMs: number,
  onDecision: (protocol: "h1" | "h2") => void,
): void {
  let seen = Buffer.alloc(0);
  const cancel = clock.after(timeoutMs, () => socket.destroy());

  function leave() {
    cancel();
    socket.off("data", read);
    socket.off("end", abandon);
    socket.off("close", leave);
  }
  function abandon() {
    socket.destroy();
  }
  function read(chunk: Buffer) {
    seen = Buffer.concat([seen, chunk]);
    const compared = Math.min(seen.byteLength, prefaceStart.byteLength);
    const matches = seen.subarray(0, compared).equals(prefaceStart.subarray(0, compared));
    if (matches && compared < prefaceStart.byteLength) {
      return;
    }
    leave();
    socket.pause();
    socket.unshift(seen);
    onDecision(matches ? "h2" : "h1");
  }
  socket.on("data", read);
  socket.on("end", abandon);
  socket.on("close", leave);
}
