import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";

/** The bytes of a report as they are read, and what is wrong with them. */
export interface ReportBytes extends AsyncIterable<Uint8Array> {
  /** Why there are fewer bytes than there should be. Undefined: all are there. */
  readonly brokenBecause: string | undefined;
}

/** How much more than was sent may come of compressed bytes before it counts as an attack. */
const MAX_RATIO = 200;
/** Smaller ones may be compressed better. */
const FREE_BYTES = 16 * 1024 * 1024;

/**
 * The bytes of a report, decompressed when they are gzip. More than `maxBytes` are refused, before and after
 * decompression. Compressed bytes that break off or are damaged end the report early.
 */
export function reportBytes(sent: AsyncIterable<Uint8Array>, maxBytes: number): ReportBytes {
  let brokenBecause: string | undefined;
  let sentBytes = 0;

  async function* limited(): AsyncGenerator<Uint8Array> {
    for await (const chunk of sent) {
      sentBytes += chunk.length;
      if (sentBytes > maxBytes) {
        throw tooLarge(maxBytes, "");
      }
      if (chunk.length > 0) {
        yield chunk;
      }
    }
  }

  async function* decompressed(compressed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const gunzip = createGunzip();
    // What goes wrong comes out of the iteration.
    pipeline(Readable.from(compressed), gunzip, () => {});
    let bytes = 0;
    try {
      for await (const chunk of gunzip as AsyncIterable<Uint8Array>) {
        bytes += chunk.length;
        if (bytes > maxBytes || (bytes > FREE_BYTES && bytes > sentBytes * MAX_RATIO)) {
          throw tooLarge(maxBytes, ` or more than ${MAX_RATIO} times what was sent,`);
        }
        yield chunk;
      }
    } catch (error) {
      if (!isZlibError(error)) {
        throw error;
      }
      brokenBecause = `the gzip data is damaged or breaks off (${error.code})`;
    }
  }

  return {
    get brokenBecause() {
      return brokenBecause;
    },
    async *[Symbol.asyncIterator]() {
      const chunks = limited();
      // The two bytes that tell gzip may come one by one.
      let beginning = Buffer.alloc(0);
      while (beginning.length < 2) {
        const next = await chunks.next();
        if (next.done) {
          break;
        }
        beginning = Buffer.concat([beginning, next.value]);
      }
      const all = (async function* () {
        yield beginning;
        yield* chunks;
      })();
      yield* beginning[0] === 0x1f && beginning[1] === 0x8b ? decompressed(all) : all;
    },
  };
}

function isZlibError(error: unknown): error is Error & { readonly code: string } {
  return error instanceof Error && "code" in error && /^Z_/.test(String(error.code));
}

function tooLarge(maxBytes: number, decompressed: string): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "REPORT_TOO_LARGE",
    message: `The report has more than ${maxBytes} bytes,${decompressed} which is what testing.max_import_bytes allows: split it, or raise the setting`,
    quotas: [{ subject: "testing.max_import_bytes", description: `${maxBytes} bytes a report` }],
  });
}
