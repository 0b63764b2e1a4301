/** Where a server listens that was started without options. */
export const DEFAULT_URL = "http://127.0.0.1:7400";
