// As much of `@nestjs/common` as the README uses.

export declare function Module(metadata: {
  readonly providers?: readonly { readonly provide: Function; readonly useValue: unknown }[];
  readonly exports?: readonly Function[];
}): (target: Function) => void;
export interface OnApplicationShutdown {
  onApplicationShutdown(signal?: string): unknown;
}
