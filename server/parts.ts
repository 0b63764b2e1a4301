/** Something that has to be closed. */
export interface Part {
  close(): Promise<void>;
}

/** Closes what was opened, last first, each whatever happened to the others. */
export class PartsInReverse implements Part {
  readonly #parts: Part[] = [];
  #closing: Promise<void> | undefined;

  own<T extends Part>(part: T): T {
    this.#parts.push(part);
    return part;
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    const failures: unknown[] = [];
    for (const part of this.#parts.toReversed()) {
      await part.close().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) {
      throw new AggregateError(failures, "some parts of the server could not be closed");
    }
  }
}
