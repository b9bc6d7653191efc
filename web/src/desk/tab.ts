/** One desk per operator in a browser, by a Web Lock that lives as long as its page. */

/** True when this page has the desk now. `stolen` is called when another tab takes it later. */
export function holdDesk(user: string, take: boolean, stolen: () => void, locks: LockManager | undefined = navigator.locks): Promise<boolean> {
  // Without a secure context there are no locks, and no microphone either: the start page says so.
  if (!locks) return Promise.resolve(true);
  return new Promise((answer) => {
    let held = false;
    locks
      .request(`tandem-desk-${user}`, take ? { steal: true } : { ifAvailable: true }, (lock) => {
        held = lock !== null;
        answer(held);
        return held ? new Promise<void>(() => undefined) : undefined;
      })
      .catch(() => {
        if (held) stolen();
        else answer(false);
      });
  });
}
