interface ImportMetaEnv {
  /** The application's name from the package.json in its root; vite.config.ts sets it. */
  readonly VITE_APP_NAME: string;
}
