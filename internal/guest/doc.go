// Package guest is the inside of a VM: PID 1 and the agent in one. Main boots
// (modules, disks, root overlay, network, names), then serves the API of package
// guestapi; NewAgent serves it on any listener, so that an ordinary process on a
// development host can stand in for a guest.
//
// It must stay small: its dependencies are listed in cmd/banger-guest/deps.txt
// and tested. What host and other processes of the guest send is not trusted;
// what the image holds (passwd, group, etc) is read with bounds. As PID 1 it must
// never exit except by powering off. Start at Main in boot.go for the boot and at
// Agent in agent.go for the API; internal/guestlink is the other end.
package guest
