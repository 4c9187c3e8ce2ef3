interface ImportMetaEnv {
  readonly VITE_VELT_API_KEY: string;
  readonly VITE_VELT_SDK_HOST: string;
}
