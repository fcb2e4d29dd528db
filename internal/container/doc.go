// Package container keeps the engine's containers: what each one is (its
// record), where its files lie and who may change it.
//
// Promises:
//   - One directory per container, <root>/<id>/, holds everything durable:
//     config.json (what it is; written at create, rename and update), state.json (what
//     happened to it), its writable layer and its engine-made files. Each file
//     is replaced atomically, so a crash leaves a whole old or a whole new one;
//     a directory without config.json, and without any trace of one, is a create
//     that never answered and is removed at load.
//   - A container whose record is damaged is there all the same, to be looked at,
//     stopped and removed (see Record.Whole); the others are not touched by it.
//   - Readers never wait: Load returns an immutable snapshot.
//   - Operations on one container queue up in order of arrival and give up
//     when their context ends; containers never wait for each other.
//   - Names are reserved atomically: of two creates with one name, one fails.
package container
