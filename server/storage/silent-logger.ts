import { pino } from "pino";

/** What storage logs in tests: nothing. */
export const silentLogger = pino({ level: "silent" });
