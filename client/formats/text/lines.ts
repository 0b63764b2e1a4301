/** A line of a report. */
export interface ReportLine {
  readonly text: string;
  /** From 1. */
  readonly number: number;
  /** False: the text ended before the line did. */
  readonly complete: boolean;
}

/** Cuts text into lines, without their ends. Longer lines than `maxLength` are left out, and `tooLong` is told. */
export function createLines(
  maxLength: number,
  onLine: (line: ReportLine) => void,
  tooLong: (number: number) => void,
) {
  let rest = "";
  let number = 1;
  let skipping = false;

  function skip(): void {
    tooLong(number);
    skipping = true;
    rest = "";
  }

  return {
    write(text: string): void {
      let from = 0;
      for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", from)) {
        const line = rest + text.slice(from, at);
        from = at + 1;
        rest = "";
        if (!skipping && line.length <= maxLength) {
          onLine({ text: line.endsWith("\r") ? line.slice(0, -1) : line, number, complete: true });
        } else if (!skipping) {
          tooLong(number);
        }
        skipping = false;
        number++;
      }
      if (!skipping) {
        rest += text.slice(from);
        if (rest.length > maxLength) {
          skip();
        }
      }
    },
    end(): void {
      if (rest !== "") {
        onLine({ text: rest, number, complete: false });
        rest = "";
      }
    },
  };
}
