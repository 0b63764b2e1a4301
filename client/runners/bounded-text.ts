import { hash } from "node:crypto";

/**
 * Text that grows without becoming large: of more than `limit` characters, the first three quarters and the last quarter
 * are kept. What failed is said first, what a hanging test did last.
 */
export class BoundedText {
  readonly #headLimit: number;
  readonly #tailLimit: number;
  #head = "";
  #tail = "";
  #omitted = 0;

  /** @param limit the length of `toString()` at most; the default is what the contract allows */
  constructor(limit = 65_536) {
    const room = limit - OMISSION;
    this.#headLimit = Math.floor(room * 0.75);
    this.#tailLimit = room - this.#headLimit;
  }

  get empty(): boolean {
    return this.#head === "";
  }

  append(text: string): void {
    const room = this.#headLimit - this.#head.length;
    this.#head += text.slice(0, room);
    if (text.length <= room) {
      return;
    }
    const tail = this.#tail + text.slice(room);
    this.#omitted += Math.max(0, tail.length - this.#tailLimit);
    this.#tail = tail.slice(-this.#tailLimit);
  }

  toString(): string {
    return this.#omitted === 0
      ? this.#head + this.#tail
      : `${this.#head}\n… ${this.#omitted} characters left out …\n${this.#tail}`.toWellFormed();
  }
}

/** Room for the words about what was left out. */
const OMISSION = 64;

/** A text of at most `limit` characters, for text that is only read. */
export function boundedText(text: string, limit = 65_536): string {
  if (text.length <= limit) {
    return text;
  }
  const bounded = new BoundedText(limit);
  bounded.append(text);
  return bounded.toString();
}

/** A name of at most `limit` characters that differs from every other name, however alike they begin. */
export function boundedName(name: string, limit: number): string {
  return name.length <= limit
    ? name
    : `${name.slice(0, limit - 18).toWellFormed()}… ${hash("sha256", name).slice(0, 16)}`;
}
