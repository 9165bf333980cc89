// The logger that this folder is handed; pino's loggers fit it.
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };
