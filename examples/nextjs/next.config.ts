import type { NextConfig } from 'next';

const config: NextConfig = {
  // The folder of the app. Next.js would take a folder above it that has a lock file.
  turbopack: { root: import.meta.dirname },
};

export default config;
