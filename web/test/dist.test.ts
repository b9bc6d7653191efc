import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';

const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const KB = 1000;

describe.runIf(existsSync(DIST))('the built pages', () => {
  const assets = readdirSync(`${DIST}assets`);
  const index = readFileSync(`${DIST}index.html`, 'utf8');
  const gz = (names: readonly string[]): number => names.reduce((sum, name) => sum + gzipSync(readFileSync(`${DIST}assets/${name}`), { level: 9 }).length, 0);
  const but = (...chunks: string[]): string[] => assets.filter((name) => !chunks.some((chunk) => name.startsWith(`${chunk}-`)));

  it('need nothing inline, so that a strict content security policy holds', () => {
    expect(index).not.toMatch(/<script(?![^>]*\bsrc=)/);
    expect(index).not.toMatch(/<style|\sstyle=|\son\w+=/);
  });

  it('need nothing from elsewhere and carry no source maps', () => {
    expect(index).not.toMatch(/(?:src|href)="(?:https?:)?\/\//);
    expect(assets.filter((name) => name.endsWith('.map'))).toEqual([]);
    for (const name of assets) expect(readFileSync(`${DIST}assets/${name}`, 'utf8'), name).not.toContain('sourceMappingURL');
  });

  it('keep to their budgets, compressed', () => {
    const first = [...index.matchAll(/assets\/([^"]+)"/g)].map((found) => found[1] as string);
    expect(gz([...first, ...assets.filter((name) => name.startsWith('en-'))]), 'first load').toBeLessThan(40 * KB);
    expect(gz(but('ru', 'uk', 'Board', 'JsSIP', 'Work')), 'start page').toBeLessThan(45 * KB);
    expect(gz(but('ru', 'uk', 'Board')), 'desk, ready to ring').toBeLessThan(110 * KB);
    expect(gz(but('ru', 'uk', 'Desk', 'Work', 'JsSIP')), 'wallboard').toBeLessThan(75 * KB);
  });
});
