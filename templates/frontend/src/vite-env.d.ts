interface ImportMetaEnv {
  /** The name in the app root's package.json, put in by vite.config.ts. */
  readonly VITE_APP_NAME: string;
}
