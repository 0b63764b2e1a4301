/** Bytes of a request that are kept for sending them again. Of longer requests nothing is kept. */
const MAX_KEPT_BYTES = 64 * 1024;

/** A request body that can be sent from its beginning again, as long as little of it was sent. */
export interface ReplayableBody {
  /** What is sent first, from the beginning; only the iteration that was begun last goes on. */
  readonly body: AsyncIterable<Uint8Array>;
  /** True while the beginning is still there. */
  replayable(): boolean;
  /** Nobody reads on: lets go of the source. */
  cancel(): void;
  /** The request was taken: the beginning is not needed any more. */
  forget(): void;
}

export function createReplayableBody(source: AsyncIterable<Uint8Array>): ReplayableBody {
  const iterator = source[Symbol.asyncIterator]();
  // Results in the order they were asked for, so that one which was asked for by an attempt that failed is not lost.
  let kept: Promise<IteratorResult<Uint8Array>>[] | undefined = [];
  let bytes = 0;
  let attempt = 0;

  function pull(): Promise<IteratorResult<Uint8Array>> {
    const result = iterator.next();
    kept?.push(result);
    result.then(
      ({ value }) => {
        bytes += value?.byteLength ?? 0;
        if (bytes > MAX_KEPT_BYTES) {
          kept = undefined;
        }
      },
      // Whoever reads the result sees why it failed.
      () => undefined,
    );
    return result;
  }

  return {
    body: {
      [Symbol.asyncIterator]() {
        const mine = ++attempt;
        let position = 0;
        return {
          next() {
            if (mine !== attempt) {
              return Promise.resolve({ done: true, value: undefined });
            }
            return kept?.[position++] ?? pull();
          },
          async throw(error: unknown) {
            if (mine === attempt) {
              await iterator.throw?.(error);
            }
            throw error;
          },
        };
      },
    },
    cancel() {
      attempt++;
      kept = undefined;
      iterator.return?.().catch(() => undefined);
    },
    replayable: () => kept !== undefined,
    forget() {
      kept = undefined;
    },
  };
}
