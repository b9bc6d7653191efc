import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

export default {
  preprocess: vitePreprocess(),
  compilerOptions: {
    runes: true,
    // The class is made of the CSS itself, never of a path, so that every machine builds the same bytes.
    cssHash: ({ hash, css }) => `t${hash(css)}`,
  },
};
