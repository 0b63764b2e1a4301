/** A run cannot be written in this format; the message says what to do. */
export class UnsupportedExportError extends Error {
  override readonly name = "UnsupportedExportError";
}
