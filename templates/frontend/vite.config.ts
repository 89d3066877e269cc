import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig, type ProxyOptions } from "vite";
import app from "../package.json" with { type: "json" };
import { readEnv } from "../scripts/env.js";

// The backend and the front end read the same .env, in the root of the application. Environment variables override it.
const env = readEnv(fileURLToPath(new URL("..", import.meta.url)));

function port(name: string, fallback: string): number {
  const text = env[name] ?? fallback;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 65535) {
    throw new Error(`${name} is "${text}"; it must be a port from 1 to 65535. Change it in .env.`);
  }
  return value;
}

const api: ProxyOptions = {
  // Not "localhost": where that resolves to ::1 first, the proxy misses an API that listens on 127.0.0.1.
  target: env.API_URL ?? `http://127.0.0.1:${port("PORT", "8000")}`,
  // The browser's Host is passed on, because /saq compares it with the Origin of every retry and abort.
  changeOrigin: false,
};

export default defineConfig({
  plugins: [react()],
  define: { "import.meta.env.VITE_APP_NAME": JSON.stringify(app.name) },
  // Under `make dev-all` the terminal is shared with the API and the worker.
  clearScreen: false,
  server: {
    host: "127.0.0.1",
    port: port("FRONTEND_PORT", "5173"),
    strictPort: true,
    proxy: { "/queue": api, "/saq": api, "/health": api },
  },
});
