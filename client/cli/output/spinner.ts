import type { Context } from "../context.ts";

const FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏";
const FRAME_MS = 80;
/** What is done by then needs no spinner. */
const DELAY_MS = 150;

/** Runs the work and shows on a terminal's stderr that it goes on. Leaves nothing behind. */
export async function withSpinner<T>(context: Context, text: string, work: () => Promise<T>): Promise<T> {
  const { stderr } = context.io;
  if (stderr.isTTY !== true || context.json || context.io.env["TERM"] === "dumb") return await work();
  let frame = 0;
  let shown = false;
  const draw = () => {
    shown = true;
    const symbol = FRAMES[frame++ % FRAMES.length] ?? "";
    stderr.write(`\r\u001b[K${context.paintErr.cyan(symbol)} ${text}`);
  };
  let interval: NodeJS.Timeout | undefined;
  const delay = setTimeout(() => {
    draw();
    interval = setInterval(draw, FRAME_MS);
  }, DELAY_MS);
  try {
    return await work();
  } finally {
    clearTimeout(delay);
    clearInterval(interval);
    if (shown) stderr.write("\r\u001b[K");
  }
}
