export { type App, type AppOptions, createApp } from "./app.ts";
export { type ConfigOverrides, loadSettings } from "./config/load.ts";
export type { Settings } from "./config/settings.ts";
