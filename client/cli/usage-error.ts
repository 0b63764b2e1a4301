/** Something on the command line that cannot be meant. Shown with the way to the command's help. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  /** What to try instead. */
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}
